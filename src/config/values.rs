//! Options' texts as values: sizes, times, switches, permissions. Pure.
//!
//! Each function's error says what a right value looks like; the caller adds which option it was.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

/// Free space to leave, absolute or as a part of the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Floor {
    Bytes(u64),
    /// 0 to 99.
    Percent(u8),
}

type Parsed<T> = Result<T, &'static str>;

/// `10GiB`, `512MiB`, `10GB`, `4096`; a bare `K`, `M`, `G`, `T` is binary.
pub fn size(text: &str) -> Parsed<u64> {
    const WRONG: &str = "write a size like 10GiB, 512MiB or 10GB";
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor: u64 = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kib" => 1 << 10,
        "m" | "mib" => 1 << 20,
        "g" | "gib" => 1 << 30,
        "t" | "tib" => 1 << 40,
        "kb" => 1_000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        "tb" => 1_000_000_000_000,
        _ => return Err(WRONG),
    };
    if let Ok(whole) = number.parse::<u64>() {
        return whole.checked_mul(factor).ok_or(WRONG);
    }
    let number: f64 = number.parse().map_err(|_| WRONG)?;
    let bytes = number * factor as f64;
    // Above 2^53 a fraction means nothing any more, and nobody has such a disk.
    if (0.0..9e15).contains(&bytes) { Ok(bytes as u64) } else { Err(WRONG) }
}

/// A size, or `5%`.
pub fn floor(text: &str) -> Parsed<Floor> {
    const WRONG: &str = "write a size like 1GiB, or a part of the disk like 5%";
    match text.trim().strip_suffix('%') {
        Some(percent) => match percent.trim().parse() {
            Ok(percent @ 0..=99) => Ok(Floor::Percent(percent)),
            _ => Err(WRONG),
        },
        None => size(text).map(Floor::Bytes).map_err(|_| WRONG),
    }
}

/// `10s`, `5m`, `500ms`, `1h 30m`; a bare number is seconds.
pub fn time(text: &str) -> Parsed<Duration> {
    const WRONG: &str = "write a time like 10s, 500ms or 5m";
    let text = text.trim();
    if let Ok(seconds) = text.parse::<u64>() {
        return Ok(Duration::from_secs(seconds));
    }
    humantime::parse_duration(text).map_err(|_| WRONG)
}

/// `9464` and `:9464` are loopback; any other place is named in full, as `0.0.0.0:9464` or `[::1]:9464`.
pub fn listen_address(text: &str) -> Parsed<SocketAddr> {
    let text = text.trim();
    let port = text.strip_prefix(':').unwrap_or(text);
    if let Ok(port) = port.parse::<u16>() {
        return Ok(SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
    }
    let text = text.strip_prefix("localhost:").map_or_else(|| text.to_owned(), |port| format!("127.0.0.1:{port}"));
    text.parse().map_err(|_| "write a port like 9464, or an address with a port like 127.0.0.1:9464")
}

pub fn switch(text: &str) -> Parsed<bool> {
    match text.trim().to_ascii_lowercase().as_str() {
        "true" | "on" | "yes" | "1" => Ok(true),
        "false" | "off" | "no" | "0" => Ok(false),
        _ => Err("write on or off"),
    }
}

/// Octal, like `022`.
pub fn umask(text: &str) -> Parsed<u32> {
    match u32::from_str_radix(text.trim(), 8) {
        Ok(umask @ 0..=0o777) => Ok(umask),
        _ => Err("write three octal digits like 022"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_for_loopback_unless_told_otherwise() {
        for text in ["9464", ":9464", "localhost:9464", "127.0.0.1:9464"] {
            assert_eq!(listen_address(text), Ok(SocketAddr::from(([127, 0, 0, 1], 9464))), "{text}");
        }
        assert!(listen_address("[::1]:9464").is_ok_and(|address| address.ip().is_loopback()));
        assert!(listen_address("0.0.0.0:9464").is_ok_and(|address| !address.ip().is_loopback()));
        for text in ["", "example.com:9464", "127.0.0.1", "99999"] {
            assert!(listen_address(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sizes() {
        for (text, bytes) in [
            ("10GiB", Some(10 << 30)),
            ("512MiB", Some(512 << 20)),
            ("10GB", Some(10_000_000_000)),
            ("4096", Some(4096)),
            ("1.5 GiB", Some(3 << 29)),
            ("2g", Some(2 << 30)),
            ("0", Some(0)),
            ("", None),
            ("-1", None),
            ("GiB", None),
            ("10XB", None),
            ("99999999999TiB", None),
            ("1.2.3", None),
        ] {
            assert_eq!(size(text).ok(), bytes, "{text}");
        }
    }

    #[test]
    fn floors() {
        for (text, expected) in [
            ("5%", Some(Floor::Percent(5))),
            ("1GiB", Some(Floor::Bytes(1 << 30))),
            ("0", Some(Floor::Bytes(0))),
            ("100%", None),
            ("x%", None),
            ("x", None),
        ] {
            assert_eq!(floor(text).ok(), expected, "{text}");
        }
    }

    #[test]
    fn times() {
        for (text, expected) in [
            ("10s", Some(Duration::from_secs(10))),
            ("5m", Some(Duration::from_secs(300))),
            ("500ms", Some(Duration::from_millis(500))),
            ("0", Some(Duration::ZERO)),
            ("7", Some(Duration::from_secs(7))),
            ("soon", None),
            ("-1s", None),
        ] {
            assert_eq!(time(text).ok(), expected, "{text}");
        }
    }

    #[test]
    fn switches_and_umasks() {
        assert_eq!(switch("On"), Ok(true));
        assert_eq!(switch("0"), Ok(false));
        assert!(switch("maybe").is_err());
        assert_eq!(umask("022"), Ok(0o022));
        assert_eq!(umask("27"), Ok(0o027));
        assert!(umask("0999").is_err() && umask("1777").is_err());
    }

    proptest::proptest! {
        #[test]
        fn no_text_panics(text: String) {
            let _ = (size(&text), floor(&text), time(&text), switch(&text), umask(&text));
        }
    }
}
