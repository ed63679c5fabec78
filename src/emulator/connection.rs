//! One connection that can be made to break: in order or by RST, at once or after the bytes of an answer went out.
//!
//! Knows sockets and bodies, and nothing of S3. The switch is shared by the socket, the answer's body and the task that
//! drives the connection; pulled once, it stays pulled.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;
use parking_lot::Mutex;
use s3s::Body;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::Notify;

/// Breaks a connection.
#[derive(Default)]
pub struct Switch {
    pulled: Notify,
    /// Close with RST instead of FIN.
    reset: AtomicBool,
    /// Pull once everything written so far is with the kernel.
    after_flush: AtomicBool,
}

impl Switch {
    pub fn pull(&self, reset: bool) {
        self.reset.store(reset, Ordering::Release);
        self.pulled.notify_one();
    }

    pub async fn pulled(&self) {
        self.pulled.notified().await;
    }

    fn pull_after_flush(&self, reset: bool) {
        self.reset.store(reset, Ordering::Release);
        self.after_flush.store(true, Ordering::Release);
    }
}

/// The socket of a connection with a switch.
pub struct Socket {
    stream: TcpStream,
    switch: Arc<Switch>,
}

impl Socket {
    pub fn new(stream: TcpStream, switch: Arc<Switch>) -> Self {
        Self { stream, switch }
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        if self.switch.reset.load(Ordering::Acquire) {
            // Lingering for no time makes the kernel drop what is queued and send RST; failing that, it is a close.
            let _ = self.stream.set_zero_linger();
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.stream).poll_flush(context))?;
        if self.switch.after_flush.load(Ordering::Acquire) {
            self.switch.pulled.notify_one();
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

/// What is wrong with an answer's body.
pub enum Damage {
    /// Everything from this byte on is missing, and the connection ends.
    Cut { at: u64, reset: bool, switch: Arc<Switch> },
    /// Everything from this byte on waits until the fault is lifted, and then the connection is reset.
    Stall { at: u64, lifted: Pin<Box<dyn Future<Output = ()> + Send + Sync>>, switch: Arc<Switch> },
    /// This byte is turned over.
    Flip { at: u64 },
}

/// An answer's body with damage.
pub struct DamagedBody {
    inner: Body,
    damage: Damage,
    /// Bytes given out so far.
    given: u64,
}

impl DamagedBody {
    pub fn new(inner: Body, damage: Damage) -> Self {
        Self { inner, damage, given: 0 }
    }
}

impl HttpBody for DamagedBody {
    type Data = Bytes;
    type Error = s3s::StdError;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let this = &mut *self;
        if let Damage::Cut { at, reset, switch } = &this.damage
            && this.given >= *at
        {
            // The connection flushes while it waits for more, and the flush is its end.
            switch.pull_after_flush(*reset);
            return Poll::Pending;
        }
        if let Damage::Stall { at, lifted, switch } = &mut this.damage
            && this.given >= *at
        {
            ready!(lifted.as_mut().poll(context));
            switch.pull(true);
            return Poll::Pending;
        }
        let frame = match ready!(Pin::new(&mut this.inner).poll_frame(context)) {
            Some(Ok(frame)) => frame,
            other => return Poll::Ready(other),
        };
        let Ok(mut bytes) = frame.into_data() else { return Poll::Ready(None) };
        let start = this.given;
        match &this.damage {
            Damage::Cut { at, .. } | Damage::Stall { at, .. } => bytes.truncate(usize::try_from(*at - start).unwrap_or(usize::MAX)),
            Damage::Flip { at } => {
                if let Some(index) = at.checked_sub(start).and_then(|index| usize::try_from(index).ok()).filter(|&i| i < bytes.len()) {
                    let mut flipped = BytesMut::from(&bytes[..]);
                    flipped[index] ^= 0xff;
                    bytes = flipped.freeze();
                }
            }
        }
        this.given += bytes.len() as u64;
        Poll::Ready(Some(Ok(Frame::data(bytes))))
    }

    /// What the headers promise, as if nothing were wrong.
    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// A request's body that can be read to its end after its reader lost interest. Without that, an early error answer to
/// a large PUT would be lost to the reset that unread bytes cause.
#[derive(Clone)]
pub struct RequestBody(Arc<Mutex<Incoming>>);

impl RequestBody {
    pub fn new(body: Incoming) -> Self {
        Self(Arc::new(Mutex::new(body)))
    }

    /// Reads what is left, to no use.
    pub async fn drain(self) {
        let mut body = self;
        while let Some(Ok(_)) = http_body_util::BodyExt::frame(&mut body).await {}
    }
}

impl HttpBody for RequestBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        Pin::new(&mut *self.0.lock()).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.0.lock().is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.lock().size_hint()
    }
}
