//! What ETags tell of the bytes, and what they don't.
//!
//! S3 promises nothing about an ETag, but AWS, R2 and MinIO all give the MD5 of a single PUT and the MD5 of the parts'
//! MD5s with `-N` for an upload of N parts, unless the object is encrypted under a key of the customer or of KMS.
//! Here such ETags are recognised and computed; everything else is opaque and only ever compared for equality.

use bytes::Bytes;
use md5::{Digest, Md5};

use super::{Body, Part};
use crate::types::ETag;

impl Body {
    /// Hashes `bytes`.
    pub fn new(bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        let md5 = md5(&bytes);
        Self { bytes, md5 }
    }
}

pub fn md5(bytes: &[u8]) -> [u8; 16] {
    Md5::digest(bytes).into()
}

/// The ETag of an object that was stored by one PUT.
pub fn plain_etag(md5: &[u8; 16]) -> ETag {
    ETag::new(&hex(md5))
}

/// The MD5 in an ETag of 32 hex digits; None for any other form.
pub fn plain_md5(etag: &ETag) -> Option<[u8; 16]> {
    let text = etag.text();
    let text = text.as_bytes();
    let mut md5 = [0; 16];
    if text.len() != 32 {
        return None;
    }
    for (byte, pair) in md5.iter_mut().zip(text.chunks_exact(2)) {
        let [high, low] = [char::from(pair[0]).to_digit(16)?, char::from(pair[1]).to_digit(16)?];
        *byte = (high * 16 + low) as u8;
    }
    Some(md5)
}

/// The ETag of an object put together from these parts; None where a part's ETag is opaque.
pub fn multipart_etag(parts: &[Part]) -> Option<ETag> {
    let mut all = Md5::new();
    for part in parts {
        all.update(plain_md5(&part.etag)?);
    }
    Some(ETag::new(&format!("{}-{}", hex(&all.finalize().into()), parts.len())))
}

/// The N of an ETag in the form `32 hex digits-N`.
pub fn multipart_count(etag: &ETag) -> Option<usize> {
    let text = etag.text();
    let (digest, count) = text.split_once('-')?;
    plain_md5(&ETag::new(digest))?;
    count.parse().ok()
}

fn hex(md5: &[u8; 16]) -> String {
    md5.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_etags_are_md5s_in_hex() {
        assert_eq!(plain_etag(&md5(b"")).text(), "d41d8cd98f00b204e9800998ecf8427e");
        assert_eq!(plain_md5(&plain_etag(&md5(b"abc"))), Some(md5(b"abc")));
        for opaque in ["", "abc", "d41d8cd98f00b204e9800998ecf8427e-1", "z41d8cd98f00b204e9800998ecf8427e"] {
            assert_eq!(plain_md5(&ETag::new(opaque)), None, "{opaque}");
        }
    }

    #[test]
    fn multipart_etags_hash_the_parts_hashes() {
        let part = |number, bytes: &[u8]| Part { number, etag: plain_etag(&md5(bytes)), size: bytes.len() as u64 };
        let mut hashes = md5(b"ab").to_vec();
        hashes.extend(md5(b"c"));
        let etag = multipart_etag(&[part(1, b"ab"), part(2, b"c")]).unwrap();
        assert_eq!(etag.text(), format!("{}-2", plain_etag(&md5(&hashes)).text()));
        assert_eq!(multipart_count(&etag), Some(2));
        let opaque = Part { number: 3, etag: ETag::new("opaque"), size: 1 };
        assert_eq!(multipart_etag(&[part(1, b"ab"), opaque]), None);
        assert_eq!(multipart_count(&ETag::new("opaque-2")), None);
    }
}
