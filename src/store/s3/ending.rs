//! Whether an XML answer is there to its end. The SDK's parser takes one that breaks off for a shorter one: half a listing for
//! a whole directory, a list of failures without the last for success. Where an answer has no length (many stores send
//! listings in chunks, and a proxy between may end them in good order), only its last tag tells.

/// More than a declaration and any root's tag with its namespace.
const HEAD_BYTES: usize = 512;
/// More than any closing tag and what may stand behind it.
const TAIL_BYTES: usize = 128;

/// What was seen of a body so far.
#[derive(Debug, Default)]
pub(super) struct Ending {
    head: Vec<u8>,
    tail: Vec<u8>,
}

impl Ending {
    /// The next bytes of the body.
    pub fn see(&mut self, bytes: &[u8]) {
        // Stores send spaces while they work on a Complete.
        let begin = if self.head.is_empty() { bytes.trim_ascii_start() } else { bytes };
        self.head.extend(begin.iter().take(HEAD_BYTES - self.head.len()));
        let last = &bytes[bytes.len().saturating_sub(TAIL_BYTES)..];
        let kept = self.tail.len().saturating_sub(TAIL_BYTES - last.len());
        self.tail.drain(..kept);
        self.tail.extend(last);
    }

    /// False: it is S3's XML and breaks off. What is something else is for others to judge.
    pub fn is_there(&self) -> bool {
        let mut head = self.head.as_slice();
        if head.starts_with(b"<?") {
            let Some(end) = head.windows(2).position(|two| two == b"?>") else { return false };
            head = head[end + 2..].trim_ascii_start();
        } else if !head.starts_with(b"<") {
            return true;
        }
        let Some(tag) = head.strip_prefix(b"<") else { return false };
        let root = tag.split(|byte| matches!(byte, b'>' | b'/') || byte.is_ascii_whitespace()).next().unwrap_or_default();
        let is_empty = tag.iter().position(|byte| *byte == b'>').is_some_and(|end| tag[..end].ends_with(b"/"));
        // S3's names begin so, and those of web pages don't.
        let is_foreign = root.first().is_some_and(|first| !first.is_ascii_uppercase());
        is_foreign || is_empty || self.closes(root)
    }

    fn closes(&self, root: &[u8]) -> bool {
        let without = |text: &'_ [u8], end: &[u8]| text.strip_suffix(end).map(<[u8]>::to_vec);
        let tail = self.tail.trim_ascii_end();
        let named = without(tail, b">").and_then(|tail| without(tail.trim_ascii_end(), root));
        named.is_some_and(|tail| tail.ends_with(b"</"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_there(body: &str, piece: usize) -> bool {
        let mut ending = Ending::default();
        body.as_bytes().chunks(piece).for_each(|bytes| ending.see(bytes));
        ending.is_there()
    }

    #[test]
    fn an_answer_that_breaks_off_is_told() {
        for whole in [
            "<?xml version=\"1.0\"?>\n<Result xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><A>1</A><B/></Result>",
            "   \n  <Result><A></A></Result>\n",
            "<Result></Result >",
        ] {
            for piece in [1, 7, 4096] {
                assert!(is_there(whole, piece), "{whole}");
                let begin = whole.find('<').unwrap() + 1;
                for at in begin..whole.trim_end().len() {
                    assert!(!is_there(&whole[..at], piece), "{}", &whole[..at]);
                }
            }
        }
    }

    #[test]
    fn long_answers_too() {
        let whole = format!("<Result>{}</Result>", "<Key>x</Key>".repeat(10_000));
        assert!(is_there(&whole, 1000));
        assert!(!is_there(&whole[..whole.len() - 1], 1000));
        assert!(!is_there(&whole[..60_000], 1000));
    }

    #[test]
    fn what_is_no_answer_of_s3_is_left_to_others() {
        for other in
            ["", "   ", "no XML", "<!DOCTYPE html><html><p>", "<html><body>", "<Result/>", "<?xml version=\"1.0\"?><Result xmlns=\"x\" />"]
        {
            assert!(is_there(other, 5), "{other}");
        }
    }
}
