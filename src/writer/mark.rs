//! How a copy is told afterwards, when nobody heard of it.
//!
//! Renames are copies, and so are new headers: onto the object itself. A copy of what went up in parts has an ETag that can't
//! be foretold. If its answer is lost, or the daemon dies before it is recorded, the object looks like another host's. So
//! before it is asked for, its mark is journalled: its size, and all headers that stores keep as they are. Among these is the
//! file's time of change to the nanosecond, without which there is no mark: another host's version of the same size has
//! another one.

use super::Shared;
use super::copy::copied;
use super::flight::Job;
use super::source::is_gone;
use crate::error::Result;
use crate::journal::Change;
use crate::media::gzip;
use crate::store::{md5, multipart_count, plain_etag};
use crate::types::{ETag, MTIME, ObjectHeaders, ObjectInfo, Version};

/// What stores say of objects that were given no type.
const NO_TYPE: [&str; 2] = ["application/octet-stream", "binary/octet-stream"];

/// In the journal's text between a mark and the ETag of what is copied. No ETag holds a space, so that it is told from one.
const OF: &str = " of ";

/// Size and headers of an object, as a short text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark(String);

impl Mark {
    /// None: too much else could look the same.
    fn new(size: u64, headers: &ObjectHeaders) -> Option<Self> {
        headers.metadata.get(MTIME)?;
        let kept = ObjectHeaders {
            content_type: headers.content_type.clone().filter(|kind| !NO_TYPE.contains(&kind.as_str())),
            // Stores name the standard one or not, and their rules move objects between classes.
            storage_class: None,
            metadata: headers.metadata.iter().map(|(name, value)| (name.to_ascii_lowercase(), value.clone())).collect(),
            ..headers.clone()
        };
        let text = serde_json::to_vec(&kept).ok()?;
        Some(Self(format!("{size}-{}", plain_etag(&md5(&text)).text())))
    }

    pub fn tells(&self, info: &ObjectInfo) -> bool {
        Self::new(info.size, &info.headers).as_ref() == Some(self)
    }

    /// The journal's text for a copy of the version `of`.
    fn text(&self, of: &ETag) -> ETag {
        ETag::new(&format!("{}{OF}{}", self.0, of.text()))
    }

    /// The mark and what is copied; None where the text is an ETag.
    pub fn read(text: &ETag) -> Option<(Self, ETag)> {
        text.text().split_once(OF).map(|(mark, of)| (Self(mark.to_owned()), ETag::new(of)))
    }
}

/// Where `job` is a copy that its ETag won't tell, journals and remembers how it will be told. To be called before the journal
/// is flushed.
pub async fn begin(shared: &Shared, job: &Job) -> Result<()> {
    let Some(from) = copied(&job.desired.content) else { return Ok(()) };
    match job.desired.headers() {
        Some(headers) => note(shared, job, from, headers),
        None if from.key == job.key || keeps_etag(from) => Ok(()),
        // The bucket gives the copy what the object has.
        None => match shared.store.head(&from.key).await {
            Ok(info) if info.etag == from.etag => note(shared, job, from, info.headers),
            Ok(_) => Ok(()),
            Err(error) if is_gone(&error) => Ok(()),
            Err(error) => Err(error.into()),
        },
    }
}

/// The same for a copy of `from` that gets these headers.
pub fn note(shared: &Shared, job: &Job, from: &Version, mut headers: ObjectHeaders) -> Result<()> {
    if from.key != job.key && keeps_etag(from) {
        return Ok(());
    }
    // What was compressed went up in one piece: its ETag is that of its bytes, and stays.
    gzip::unmark(&mut headers);
    let Some(mark) = Mark::new(from.size, &headers) else { return Ok(()) };
    let mut queue = shared.queue.lock();
    // The row goes with that of what is wanted.
    if queue.get(&job.key).is_some() {
        shared.journal.apply(&[Change::Attempt(job.key.clone(), mark.text(&from.etag))])?;
        queue.remember_copy(&job.key, mark, from.etag.clone());
    }
    Ok(())
}

/// A copy of what went up in one piece is told by its ETag.
fn keeps_etag(from: &Version) -> bool {
    multipart_count(&from.etag).is_none()
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::types::Archive;

    fn headers(mtime: Option<&str>) -> ObjectHeaders {
        let metadata = mtime.iter().map(|time| (MTIME.to_owned(), time.to_string())).chain([("mode".into(), "0100600".into())]);
        ObjectHeaders { metadata: metadata.collect(), ..ObjectHeaders::default() }
    }

    #[test]
    fn a_copy_is_told_by_size_and_headers() {
        let wanted = headers(Some("1700000000.000000001"));
        let mark = Mark::new(7, &wanted).unwrap();
        let info = |size, headers: &ObjectHeaders| ObjectInfo {
            size,
            etag: ETag::new("any"),
            last_modified: SystemTime::UNIX_EPOCH,
            headers: headers.clone(),
            archive: Archive::Readable,
        };
        let typed = |kind: &str| ObjectHeaders { content_type: Some(kind.into()), ..wanted.clone() };
        let class = ObjectHeaders { storage_class: Some("STANDARD".into()), ..wanted.clone() };
        for (size, headers, expected) in [
            (7, &wanted, true),
            (8, &wanted, false),
            (7, &headers(Some("1700000000.000000002")), false),
            (7, &headers(None), false),
            (7, &typed("binary/octet-stream"), true),
            (7, &typed("image/png"), false),
            (7, &class, true),
        ] {
            assert_eq!(mark.tells(&info(size, headers)), expected, "{size} {headers:?}");
        }
        assert_eq!(Mark::new(7, &headers(None)), None, "too little to tell it by");
    }

    #[test]
    fn marks_and_etags_share_a_column_of_the_journal() {
        let mark = Mark::new(7, &headers(Some("1.5"))).unwrap();
        assert_eq!(Mark::read(&mark.text(&ETag::new("abc-2"))), Some((mark, ETag::new("abc-2"))));
        assert_eq!(Mark::read(&ETag::new("abc-2")), None);
    }
}
