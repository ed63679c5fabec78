//! The headers of an object that can be chosen, by their names in rules and extended attributes.
//!
//! Which of them were chosen for one object stands in its metadata, so that neither a rename nor a rewrite nor another
//! host's rules take the choice away.

use crate::types::ObjectHeaders;

/// The metadata that names the chosen headers, with commas between.
const CHOSEN: &str = "mediafs-set";

/// Names that begin so say something about the object in mediafs' own words.
const OWN_METADATA: &str = "mediafs-";

/// A header has to share S3's 8 KB with all others.
const VALUE_LIMIT_BYTES: usize = 1024;

/// Storage classes of S3, the standard one first.
const CLASSES: [&str; 9] = [
    "STANDARD",
    "STANDARD_IA",
    "ONEZONE_IA",
    "INTELLIGENT_TIERING",
    "GLACIER_IR",
    "GLACIER",
    "DEEP_ARCHIVE",
    "REDUCED_REDUNDANCY",
    "EXPRESS_ONEZONE",
];

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Header {
    ContentType,
    CacheControl,
    ContentDisposition,
    ContentEncoding,
    ContentLanguage,
    StorageClass,
}

impl Header {
    pub const ALL: [Self; 6] =
        [Self::ContentType, Self::CacheControl, Self::ContentDisposition, Self::ContentEncoding, Self::ContentLanguage, Self::StorageClass];

    pub fn name(self) -> &'static str {
        match self {
            Self::ContentType => "content-type",
            Self::CacheControl => "cache-control",
            Self::ContentDisposition => "content-disposition",
            Self::ContentEncoding => "content-encoding",
            Self::ContentLanguage => "content-language",
            Self::StorageClass => "storage-class",
        }
    }

    pub fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|header| header.name() == name)
    }

    pub fn get(self, headers: &ObjectHeaders) -> Option<&str> {
        match self {
            Self::ContentType => &headers.content_type,
            Self::CacheControl => &headers.cache_control,
            Self::ContentDisposition => &headers.content_disposition,
            Self::ContentEncoding => &headers.content_encoding,
            Self::ContentLanguage => &headers.content_language,
            Self::StorageClass => &headers.storage_class,
        }
        .as_deref()
    }

    /// The standard storage class is kept as none, as stores give it back.
    pub fn set(self, headers: &mut ObjectHeaders, value: Option<&str>) {
        let is_default = |value: &str| value.is_empty() || (self == Self::StorageClass && value == CLASSES[0]);
        let value = value.filter(|value| !is_default(value));
        let place = match self {
            Self::ContentType => &mut headers.content_type,
            Self::CacheControl => &mut headers.cache_control,
            Self::ContentDisposition => &mut headers.content_disposition,
            Self::ContentEncoding => &mut headers.content_encoding,
            Self::ContentLanguage => &mut headers.content_language,
            Self::StorageClass => &mut headers.storage_class,
        };
        *place = value.map(str::to_owned);
    }

    /// Whether every object has one, so that it can't be empty.
    pub fn is_always_there(self) -> bool {
        matches!(self, Self::ContentType | Self::StorageClass)
    }

    /// Err: what to write instead. An empty value means that the header shall not be there.
    pub fn check(self, value: &str) -> Result<(), &'static str> {
        let is_plain = value.bytes().all(|byte| (b' '..=b'~').contains(&byte)) && value.trim() == value;
        match self {
            _ if value.len() > VALUE_LIMIT_BYTES => Err("at most 1,024 bytes"),
            _ if !is_plain => Err("write it in ASCII, without spaces around it"),
            Self::ContentType if !is_media_type(value) => Err("write a type like image/jpeg"),
            Self::StorageClass if !CLASSES.contains(&value) => Err("write a storage class of S3, like STANDARD_IA"),
            _ => Ok(()),
        }
    }
}

fn is_media_type(value: &str) -> bool {
    let essence = value.split(';').next().unwrap_or_default().trim();
    let is_token = |text: &str| !text.is_empty() && !text.contains(|c: char| c.is_whitespace() || "/,;\"".contains(c));
    essence.split_once('/').is_some_and(|(kind, subtype)| is_token(kind) && is_token(subtype))
}

/// True for metadata that is not the user's to see or change as such.
pub fn is_own_metadata(name: &str) -> bool {
    name.starts_with(OWN_METADATA)
}

/// Somebody chose this header, or its absence, for this very object.
pub fn is_chosen(headers: &ObjectHeaders, header: Header) -> bool {
    headers.metadata.get(CHOSEN).is_some_and(|names| names.split(',').any(|name| name == header.name()))
}

pub fn set_chosen(headers: &mut ObjectHeaders, header: Header, chosen: bool) {
    let names: Vec<&str> =
        Header::ALL.into_iter().filter(|one| if *one == header { chosen } else { is_chosen(headers, *one) }).map(Header::name).collect();
    match names.join(",") {
        none if none.is_empty() => headers.metadata.remove(CHOSEN),
        names => headers.metadata.insert(CHOSEN.to_owned(), names),
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_choice_is_kept_in_the_metadata() {
        let mut headers = ObjectHeaders::default();
        set_chosen(&mut headers, Header::CacheControl, true);
        set_chosen(&mut headers, Header::ContentType, true);
        assert_eq!(headers.metadata.get(CHOSEN).map(String::as_str), Some("content-type,cache-control"));
        set_chosen(&mut headers, Header::CacheControl, false);
        assert!(is_chosen(&headers, Header::ContentType) && !is_chosen(&headers, Header::CacheControl));
        set_chosen(&mut headers, Header::ContentType, false);
        assert_eq!(headers, ObjectHeaders::default());
    }

    #[test]
    fn values_are_checked() {
        for (header, value, right) in [
            (Header::ContentType, "image/jpeg", true),
            (Header::ContentType, "text/html; charset=utf-8", true),
            (Header::ContentType, "jpeg", false),
            (Header::ContentType, "", false),
            (Header::CacheControl, "public, max-age=31536000, immutable", true),
            (Header::CacheControl, "", true),
            (Header::CacheControl, "max-age=1\r\nx: y", false),
            (Header::CacheControl, " max-age=1", false),
            (Header::ContentDisposition, "attachment; filename=\u{fc}", false),
            (Header::StorageClass, "STANDARD_IA", true),
            (Header::StorageClass, "COLD", false),
        ] {
            assert_eq!(header.check(value).is_ok(), right, "{header:?} {value:?}");
        }
    }

    #[test]
    fn the_standard_class_is_none() {
        let mut headers = ObjectHeaders { storage_class: Some("GLACIER".into()), ..Default::default() };
        Header::StorageClass.set(&mut headers, Some("STANDARD"));
        assert_eq!(headers.storage_class, None);
    }
}
