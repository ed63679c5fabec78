//! Objects that are stored compressed for the CDN before the bucket, and are files of their original bytes here.
//!
//! What marks such an object is its `Content-Encoding: gzip` beside metadata with the length of the original: only an
//! upload of ours gives both. Reading goes by the mark alone, writing by the rules alone, so that a file stays readable
//! wherever it is moved and whatever the rules become. An object of other programs that is encoded with gzip is what is
//! stored: how long its original is, nobody says without reading it.
//!
//! INVARIANT: above the store, sizes, spans and bytes of a marked object are the original's; only listings, which can't
//! tell, show how much is stored. The ETag is always that of the stored bytes.
//!
//! Pure. The same bytes are compressed to the same bytes: an upload that is repeated after a crash has the same ETag.

use std::io::{Read, Write};

use flate2::bufread::GzDecoder;
use flate2::{Compression, GzBuilder};

use super::header::{Header, is_chosen};
use super::rules::Rules;
use crate::types::{Key, ObjectHeaders};

/// The metadata with the length of the original, in bytes.
const ORIGINAL_SIZE: &str = "mediafs-size";

const GZIP: &str = "gzip";

/// The largest original. What is larger goes up in parts, which are read and copied by ranges; and whoever reads such an
/// object has all of it in memory.
pub const LIMIT_BYTES: u64 = 16 << 20;

/// Below this, compressed or not, it is one packet.
pub const LEAST_BYTES: u64 = 1 << 10;

/// What a mark takes of the room for metadata.
pub const ROOM_BYTES: usize = ORIGINAL_SIZE.len() + 8;

/// The length of the original behind a marked object.
pub fn original_size(headers: &ObjectHeaders) -> Option<u64> {
    let size = headers.metadata.get(ORIGINAL_SIZE).filter(|_| headers.content_encoding.as_deref() == Some(GZIP))?;
    size.parse().ok().filter(|size| *size <= LIMIT_BYTES)
}

/// Whether the headers say anything of a mark, be it true or left over from another version.
pub fn mentions(headers: &ObjectHeaders) -> bool {
    headers.metadata.contains_key(ORIGINAL_SIZE)
}

pub fn mark(headers: &mut ObjectHeaders, original_size: u64) {
    headers.content_encoding = Some(GZIP.to_owned());
    headers.metadata.insert(ORIGINAL_SIZE.to_owned(), original_size.to_string());
}

/// The headers of the same file, stored as it is.
pub fn unmark(headers: &mut ObjectHeaders) {
    if headers.metadata.remove(ORIGINAL_SIZE).is_some() && headers.content_encoding.as_deref() == Some(GZIP) {
        headers.content_encoding = None;
    }
}

/// Whether both say the same of a file, however it is stored.
pub fn agree(a: &ObjectHeaders, b: &ObjectHeaders) -> bool {
    let plain = |headers: &ObjectHeaders| {
        let mut headers = headers.clone();
        unmark(&mut headers);
        headers
    };
    a == b || (mentions(a) || mentions(b)) && plain(a) == plain(b)
}

/// Whether a file of this length goes up compressed. `headers` are not marked; an encoding that somebody chose, or another
/// rule gave, says that the bytes are what they should be.
pub fn is_wanted(rules: &Rules, key: &Key, headers: &ObjectHeaders, size: u64) -> bool {
    let is_free = headers.content_encoding.is_none() && !is_chosen(headers, Header::ContentEncoding);
    is_free && size <= LIMIT_BYTES && rules.gzip_from(key).is_some_and(|least| size >= least.max(1))
}

/// None: it would not be smaller.
pub fn compress(bytes: &[u8]) -> Option<Vec<u8>> {
    let buffer = Vec::with_capacity(bytes.len() / 2);
    // Without time and name, which would make two of one. It is done once, and sent to every visitor.
    let mut encoder = GzBuilder::new().mtime(0).write(buffer, Compression::best());
    encoder.write_all(bytes).ok()?;
    encoder.finish().ok().filter(|compressed| compressed.len() < bytes.len())
}

/// The original, which has `size` bytes. Err: why it isn't there.
pub fn inflate(stored: &[u8], size: u64) -> Result<Vec<u8>, String> {
    let mut decoder = GzDecoder::new(stored);
    let mut bytes = Vec::with_capacity(size.min(LIMIT_BYTES) as usize);
    // One more would show.
    decoder.by_ref().take(size + 1).read_to_end(&mut bytes).map_err(|error| format!("not gzip, or not all of it: {error}"))?;
    match (bytes.len() as u64 == size, decoder.into_inner().is_empty()) {
        (true, true) => Ok(bytes),
        (true, false) => Err("something follows the compressed bytes".to_owned()),
        (false, _) if bytes.len() as u64 > size => Err(format!("more than the {size} bytes of the original")),
        (false, _) => Err(format!("{} of the {size} bytes of the original", bytes.len())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::{RulesBuilder, set_chosen};

    fn rules() -> Rules {
        let mut rules = RulesBuilder::default();
        rules.gzip("raw/**", None).unwrap();
        rules.gzip("*.css", Some(LEAST_BYTES)).unwrap();
        rules.gzip("*.svg", Some(0)).unwrap();
        rules.build().unwrap()
    }

    #[test]
    fn a_mark_is_an_encoding_and_a_length() {
        let plain = ObjectHeaders { content_type: Some("text/css".into()), ..Default::default() };
        let mut headers = plain.clone();
        assert_eq!(original_size(&headers), None);
        mark(&mut headers, 5000);
        assert_eq!((original_size(&headers), headers.content_encoding.as_deref()), (Some(5000), Some("gzip")));
        assert!(agree(&headers, &plain) && agree(&plain, &headers) && mentions(&headers) && !mentions(&plain));
        let other = ObjectHeaders { content_type: Some("text/x".into()), ..headers.clone() };
        assert!(!agree(&headers, &other));
        let reencoded = ObjectHeaders { content_encoding: Some("br".into()), ..headers.clone() };
        assert_eq!(original_size(&reencoded), None);
        for wrong in ["", "-1", "x", "16777217"] {
            let mut headers = headers.clone();
            headers.metadata.insert(ORIGINAL_SIZE.into(), wrong.into());
            assert_eq!(original_size(&headers), None, "{wrong}");
        }
        unmark(&mut headers);
        assert_eq!(headers, plain);
        let mut theirs = ObjectHeaders { content_encoding: Some("gzip".into()), ..Default::default() };
        unmark(&mut theirs);
        assert_eq!(theirs.content_encoding.as_deref(), Some("gzip"), "only a mark of ours goes");
    }

    #[test]
    fn rules_and_choices_decide() {
        let rules = rules();
        let free = ObjectHeaders::default();
        for (key, size, wanted) in [
            ("a.css", LEAST_BYTES, true),
            ("deep/er/a.css", LEAST_BYTES, true),
            ("a.css", LEAST_BYTES - 1, false),
            ("a.css", LIMIT_BYTES, true),
            ("a.css", LIMIT_BYTES + 1, false),
            ("raw/a.css", LEAST_BYTES, false),
            ("a.svg", 1, true),
            ("a.svg", 0, false),
            ("a.js", LEAST_BYTES, false),
        ] {
            assert_eq!(is_wanted(&rules, &Key::from(key), &free, size), wanted, "{key} {size}");
        }
        let given = ObjectHeaders { content_encoding: Some("br".into()), ..Default::default() };
        let mut chosen = ObjectHeaders::default();
        set_chosen(&mut chosen, Header::ContentEncoding, true);
        for headers in [given, chosen] {
            assert!(!is_wanted(&rules, &Key::from("a.css"), &headers, 5000), "{headers:?}");
        }
    }

    #[test]
    fn the_original_comes_back_and_nothing_else_passes_for_it() {
        let original = b"a { color: red } ".repeat(300);
        let stored = compress(&original).unwrap();
        assert_eq!(Some(&stored), compress(&original).as_ref(), "the same each time");
        let size = original.len() as u64;
        assert_eq!(inflate(&stored, size).as_deref(), Ok(&original[..]));
        assert!(inflate(&stored, size - 1).is_err() && inflate(&stored, size + 1).is_err());
        for end in 0..stored.len() {
            assert!(inflate(&stored[..end], size).is_err(), "cut at {end}");
        }
        for at in 10..stored.len() {
            let mut damaged = stored.clone();
            damaged[at] ^= 0x10;
            // The last bits before the checksum are nobody's.
            assert!(inflate(&damaged, size).is_ok_and(|bytes| bytes == original) || inflate(&damaged, size).is_err(), "bit at {at}");
        }
        let mut longer = stored.clone();
        longer.push(0);
        assert!(inflate(&longer, size).is_err());
        assert_eq!(inflate(&original, size), Err("not gzip, or not all of it: invalid gzip header".into()));
    }

    #[test]
    fn what_does_not_shrink_stays() {
        assert_eq!(compress(b"x"), None);
    }
}
