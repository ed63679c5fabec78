//! A server that gives every request the same prepared answer, and remembers what it was asked.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::store::s3::{S3Config, S3Store, StaticCredentials, connect};

pub struct Server {
    pub url: String,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Server {
    /// `answer` is written as it is, then the connection is closed; None never answers.
    pub async fn new(answer: Option<Vec<u8>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let requests = Arc::new(Mutex::new(Vec::new()));
        let seen = requests.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, answer.clone(), seen.clone()));
            }
        });
        Self { url, requests }
    }

    /// The requests so far, each its head in lower case.
    pub fn requests(&self) -> Vec<String> {
        self.requests.lock().clone()
    }

    pub fn config(&self) -> S3Config {
        config(&self.url)
    }

    pub async fn store(&self) -> S3Store {
        connect(self.config()).await.unwrap()
    }
}

pub fn config(url: &str) -> S3Config {
    S3Config {
        endpoint_url: Some(url.to_owned()),
        region: Some("here-1".to_owned()),
        credentials: Some(StaticCredentials::new("AKID", "hush")),
        ..S3Config::new("bucket")
    }
}

async fn serve(mut stream: TcpStream, answer: Option<Vec<u8>>, seen: Arc<Mutex<Vec<String>>>) {
    let mut bytes = Vec::new();
    let head = loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break String::from_utf8_lossy(&bytes[..end]).to_ascii_lowercase();
        }
        // A TLS greeting is answered as plain servers do: with something that isn't TLS.
        let greeting = bytes.first() == Some(&0x16);
        if greeting {
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        }
        if greeting || stream.read_buf(&mut bytes).await.unwrap_or(0) == 0 {
            return;
        }
    };
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok());
    while bytes.len() < head.len() + 4 + length.unwrap_or(0) {
        if stream.read_buf(&mut bytes).await.unwrap_or(0) == 0 {
            return;
        }
    }
    seen.lock().push(head);
    match answer {
        Some(answer) => {
            let _ = stream.write_all(&answer).await;
            let _ = stream.shutdown().await;
        }
        None => std::future::pending().await,
    }
}

/// An answer with these headers (one a line) and this body.
pub fn answer(status: u16, headers: &str, body: &str) -> Vec<u8> {
    let headers: String = headers.lines().map(|line| format!("{}\r\n", line.trim())).collect();
    format!("HTTP/1.1 {status} X\r\n{headers}Content-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len()).into_bytes()
}

/// An error in S3's form.
pub fn error(status: u16, code: &str, inside: &str) -> Vec<u8> {
    let body = format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>text</Message>{inside}</Error>");
    answer(status, "Content-Type: application/xml", &body)
}
