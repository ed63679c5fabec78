//! What kind of media a name or its first bytes stand for.
//!
//! The table of `mime_guess` knows a thousand extensions; those that browsers and CDNs care about, and that it has wrong,
//! old or not at all, are corrected here.

use crate::types::Key;

/// For what nobody knows.
pub const DEFAULT_TYPE: &str = "application/octet-stream";

/// The marker object of a directory.
pub const DIRECTORY_TYPE: &str = "application/x-directory";

/// How many first bytes sniffing looks at, at most.
pub const SNIFF_BYTES: usize = 512;

/// Sorted by extension.
const CORRECTED: &[(&str, &str)] = &[
    ("avif", "image/avif"),
    ("br", "application/x-brotli"),
    ("cjs", "text/javascript"),
    ("heic", "image/heic"),
    ("heif", "image/heif"),
    ("js", "text/javascript"),
    ("json", "application/json"),
    ("jsonl", "application/jsonl"),
    ("jxl", "image/jxl"),
    ("m2ts", "video/mp2t"),
    ("m3u8", "application/vnd.apple.mpegurl"),
    ("m4a", "audio/mp4"),
    ("m4s", "video/iso.segment"),
    ("m4v", "video/mp4"),
    ("map", "application/json"),
    ("md", "text/markdown"),
    ("mjs", "text/javascript"),
    ("mp4", "video/mp4"),
    ("mts", "video/mp2t"),
    ("ndjson", "application/x-ndjson"),
    ("otf", "font/otf"),
    ("psd", "image/vnd.adobe.photoshop"),
    ("svg", "image/svg+xml"),
    ("svgz", "image/svg+xml"),
    ("tgz", "application/gzip"),
    ("toml", "application/toml"),
    ("ts", "video/mp2t"),
    ("ttf", "font/ttf"),
    ("usdz", "model/vnd.usdz+zip"),
    ("vcf", "text/vcard"),
    ("wasm", "application/wasm"),
    ("weba", "audio/webm"),
    ("webm", "video/webm"),
    ("webmanifest", "application/manifest+json"),
    ("webp", "image/webp"),
    ("woff", "font/woff"),
    ("woff2", "font/woff2"),
    ("yaml", "application/yaml"),
    ("yml", "application/yaml"),
    ("zst", "application/zstd"),
];

/// First bytes, where in the file they stand, and what they mean. The first match counts.
const MAGIC: &[(usize, &[u8], &str)] = &[
    (0, b"\xff\xd8\xff", "image/jpeg"),
    (0, b"\x89PNG\r\n\x1a\n", "image/png"),
    (0, b"GIF87a", "image/gif"),
    (0, b"GIF89a", "image/gif"),
    (8, b"WEBP", "image/webp"),
    (8, b"WAVE", "audio/wav"),
    (8, b"AVI ", "video/x-msvideo"),
    (0, b"II*\0", "image/tiff"),
    (0, b"MM\0*", "image/tiff"),
    (0, b"\0\0\x01\0", "image/x-icon"),
    (0, b"\xff\x0a", "image/jxl"),
    (0, b"\0\0\0\x0cJXL \r\n\x87\n", "image/jxl"),
    (4, b"ftypavif", "image/avif"),
    (4, b"ftypavis", "image/avif"),
    (4, b"ftypheic", "image/heic"),
    (4, b"ftypheix", "image/heic"),
    (4, b"ftypmif1", "image/heif"),
    (4, b"ftypM4A ", "audio/mp4"),
    (4, b"ftypqt  ", "video/quicktime"),
    (4, b"ftyp", "video/mp4"),
    (0, b"OggS", "audio/ogg"),
    (0, b"fLaC", "audio/flac"),
    (0, b"ID3", "audio/mpeg"),
    (0, b"%PDF-", "application/pdf"),
    (0, b"\x1f\x8b\x08", "application/gzip"),
    (0, b"\x28\xb5\x2f\xfd", "application/zstd"),
    (0, b"7z\xbc\xaf\x27\x1c", "application/x-7z-compressed"),
    (0, b"PK\x03\x04", "application/zip"),
    (0, b"wOFF", "font/woff"),
    (0, b"wOF2", "font/woff2"),
    (0, b"glTF", "model/gltf-binary"),
];

/// The Content-Type of an object of this name whose first bytes are `head` (empty where they aren't known). Only a name
/// without a known extension is judged by its bytes.
pub fn content_type(key: &Key, head: &[u8]) -> &'static str {
    if key.is_marker() {
        return DIRECTORY_TYPE;
    }
    let name = key.as_str().rsplit('/').next().unwrap_or_default();
    by_name(name).or_else(|| sniff(head)).unwrap_or(DEFAULT_TYPE)
}

/// By the extension of a file's name, in any case; None where there is none that is known.
pub fn by_name(name: &str) -> Option<&'static str> {
    // A leading dot hides a file, it does not begin an extension.
    let (stem, extension) = name.rsplit_once('.')?;
    if stem.is_empty() || extension.is_empty() {
        return None;
    }
    let lower = extension.to_ascii_lowercase();
    match CORRECTED.binary_search_by(|(known, _)| (*known).cmp(&lower)) {
        Ok(at) => Some(CORRECTED[at].1),
        Err(_) => mime_guess::from_ext(&lower).first_raw(),
    }
}

/// The type of a file of this name with these first bytes, where `old`, which it had so far, doesn't do any more. None:
/// `old` stays, which may say more than a guess (`text/html; charset=utf-8`) or come from who knows better.
pub fn guess(name: &str, head: impl FnOnce() -> Vec<u8>, old: Option<&str>) -> Option<&'static str> {
    let essence = old.map(|old| old.split(';').next().unwrap_or_default().trim());
    if let Some(kind) = by_name(name) {
        return Some(kind).filter(|kind| essence != Some(kind));
    }
    match sniff(&head()) {
        Some(kind) => Some(kind),
        None if essence.is_some_and(is_sniffed) => Some(DEFAULT_TYPE),
        None => None,
    }
}

/// A type that may have been found by [`sniff`].
fn is_sniffed(kind: &str) -> bool {
    MAGIC.iter().map(|(_, _, kind)| *kind).chain(["video/webm", "video/x-matroska"]).any(|known| known == kind)
}

/// By the first bytes of a file ([`SNIFF_BYTES`] are enough). Only formats whose beginning is unmistakable, and never
/// one that a browser would run as a page or a script: bytes that a stranger uploaded must not become one by guessing.
pub fn sniff(head: &[u8]) -> Option<&'static str> {
    if head.starts_with(b"\x1a\x45\xdf\xa3") {
        return sniff_matroska(head);
    }
    let matches = |(at, magic, _): &&(usize, &[u8], &str)| head.get(*at..).is_some_and(|rest| rest.starts_with(magic));
    let (at, _, kind) = MAGIC.iter().find(matches)?;
    let is_riff = *at == 8;
    if is_riff && !head.starts_with(b"RIFF") { None } else { Some(kind) }
}

/// WebM is Matroska with another name in its header.
fn sniff_matroska(head: &[u8]) -> Option<&'static str> {
    let has = |name: &[u8]| head[..head.len().min(SNIFF_BYTES)].windows(name.len()).any(|window| window == name);
    if has(b"webm") {
        Some("video/webm")
    } else if has(b"matroska") {
        Some("video/x-matroska")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted() {
        assert!(CORRECTED.is_sorted_by(|a, b| a.0 < b.0));
    }

    #[test]
    fn names_of_web_media() {
        let cases = [
            ("a.jpg", "image/jpeg"),
            ("a.JPEG", "image/jpeg"),
            ("dir.d/a.png", "image/png"),
            ("a.webp", "image/webp"),
            ("a.avif", "image/avif"),
            ("a.heic", "image/heic"),
            ("a.mp4", "video/mp4"),
            ("a.webm", "video/webm"),
            ("a.mov", "video/quicktime"),
            ("a.m4a", "audio/mp4"),
            ("a.mp3", "audio/mpeg"),
            ("a.woff", "font/woff"),
            ("a.woff2", "font/woff2"),
            ("a.svg", "image/svg+xml"),
            ("a.js", "text/javascript"),
            ("a.mjs", "text/javascript"),
            ("a.css", "text/css"),
            ("a.min.css", "text/css"),
            ("a.js.map", "application/json"),
            ("a.wasm", "application/wasm"),
            ("a.m3u8", "application/vnd.apple.mpegurl"),
            ("seg-1.ts", "video/mp2t"),
            ("README.md", "text/markdown"),
            ("a.txt", "text/plain"),
            ("a.pdf", "application/pdf"),
            ("a.tar.gz", "application/gzip"),
            ("a/", "application/x-directory"),
            (".jpg", "application/octet-stream"),
            ("a.", "application/octet-stream"),
            ("a.jpg/b", "application/octet-stream"),
            ("noext", "application/octet-stream"),
            ("a.\u{fc}", "application/octet-stream"),
        ];
        for (key, kind) in cases {
            assert_eq!(content_type(&Key::from(key), b""), kind, "{key}");
        }
    }

    #[test]
    fn bytes_count_only_without_a_known_extension() {
        let jpeg = b"\xff\xd8\xff\xe0rest";
        assert_eq!(content_type(&Key::from("upload"), jpeg), "image/jpeg");
        assert_eq!(content_type(&Key::from("upload.unknown-ext"), jpeg), "image/jpeg");
        assert_eq!(content_type(&Key::from("a.png"), jpeg), "image/png");
    }

    #[test]
    fn a_guess_is_made_anew_and_keeps_what_says_more() {
        let png = b"\x89PNG\r\n\x1a\n";
        for (name, head, old, expected) in [
            ("a.html", &b""[..], None, Some("text/html")),
            ("a.html", b"", Some("text/html; charset=utf-8"), None),
            ("a.png", b"", Some("image/jpeg"), Some("image/png")),
            ("upload", png, None, Some("image/png")),
            ("upload", png, Some("image/jpeg"), Some("image/png")),
            ("upload", b"text", Some("image/jpeg"), Some(DEFAULT_TYPE)),
            ("upload", b"text", Some("text/html"), None),
        ] {
            assert_eq!(guess(name, || head.to_vec(), old), expected, "{name} {old:?}");
        }
    }

    #[test]
    fn first_bytes_of_common_media() {
        let cases: &[(&[u8], Option<&str>)] = &[
            (b"", None),
            (b"\xff\xd8", None),
            (b"\x89PNG\r\n\x1a\n....", Some("image/png")),
            (b"GIF89a", Some("image/gif")),
            (b"RIFF\x10\0\0\0WEBPVP8 ", Some("image/webp")),
            (b"RIFF\x10\0\0\0WAVEfmt ", Some("audio/wav")),
            (b"XXXX\x10\0\0\0WEBPVP8 ", None),
            (b"\0\0\0\x1cftypavif", Some("image/avif")),
            (b"\0\0\0\x20ftypisom", Some("video/mp4")),
            (b"\0\0\0\x20ftypM4A ", Some("audio/mp4")),
            (b"\x1a\x45\xdf\xa3\x01\0\x42\x82\x84webm", Some("video/webm")),
            (b"\x1a\x45\xdf\xa3\x01\0\x42\x82\x88matroska", Some("video/x-matroska")),
            (b"%PDF-1.7", Some("application/pdf")),
            (b"<!doctype html><script>", None),
            (b"<svg onload=x>", None),
        ];
        for (head, kind) in cases {
            assert_eq!(sniff(head), *kind, "{head:?}");
        }
    }
}
