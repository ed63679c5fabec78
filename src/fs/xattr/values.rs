//! Extended attributes in an object's headers: reading, listing, setting, removing. Pure.

use super::Place;
use super::name::{Name, is_settable_metadata};
use crate::error::{Error, Result};
use crate::media::{self, Header, Rules, gzip};
use crate::namespace::xattrs;

/// What S3 calls the class of an object that names none.
const STANDARD: &str = "STANDARD";

/// None: there is no such attribute.
pub(super) fn get(place: &Place, name: &Name) -> Option<Vec<u8>> {
    let headers = &place.headers;
    let text = match name {
        Name::User(name) => return xattrs::get(&headers.metadata, name),
        Name::Metadata(name) => headers.metadata.get(name).map(String::as_str),
        Name::Header(_) if place.is_directory => None,
        Name::Header(header) => match header.get(headers) {
            None if *header == Header::StorageClass => Some(STANDARD),
            None if media::is_chosen(headers, *header) => Some(""),
            value => value,
        },
        Name::Own(_) | Name::Reserved | Name::Privileged => None,
    };
    text.map(|text| text.as_bytes().to_vec())
}

/// What makes this object differ from what any object of its path would be.
pub(super) fn list(place: &Place, rules: &Rules) -> Vec<String> {
    let headers = &place.headers;
    let mut names: Vec<String> = xattrs::decode(&headers.metadata).into_keys().collect();
    let differs = |header: &Header| {
        // Types are found by bytes as well, and each object has a class. How it is stored is no attribute of the file.
        let is_stored_so = || *header == Header::ContentEncoding && gzip::mentions(headers);
        let is_given = || header.is_always_there() || is_stored_so() || header.get(headers) == rules.given(*header, &place.key);
        media::is_chosen(headers, *header) || (header.get(headers).is_some() && !is_given())
    };
    if !place.is_directory {
        names.extend(Header::ALL.iter().filter(|header| differs(header)).map(|header| format!("user.s3.{}", header.name())));
    }
    let theirs = headers.metadata.iter();
    let theirs = theirs.filter(|(name, value)| is_settable_metadata(name) && !rules.gives_metadata(&place.key, name, value));
    names.extend(theirs.map(|(name, _)| format!("user.s3.meta.{name}")));
    names
}

/// `r2`: it has two storage classes. Errors: `Invalid`, `Unsupported`.
pub(super) fn set(place: &mut Place, name: &Name, value: &[u8], r2: bool) -> Result<()> {
    let headers = &mut place.headers;
    match name {
        Name::User(name) => xattrs::set(&mut headers.metadata, name, Some(value)),
        Name::Metadata(name) => {
            let text = text(value)?;
            headers.metadata.insert(name.clone(), text.to_owned());
        }
        Name::Header(_) if place.is_directory => return Err(Error::Unsupported),
        Name::Header(header) => {
            let text = text(value)?;
            header.check(text).map_err(|_| Error::Invalid)?;
            if *header == Header::ContentEncoding {
                gzip::unmark(headers);
            }
            if r2 && *header == Header::StorageClass && ![STANDARD, "STANDARD_IA"].contains(&text) {
                return Err(Error::Invalid);
            }
            header.set(headers, Some(text));
            media::set_chosen(headers, *header, true);
        }
        Name::Own(_) | Name::Reserved | Name::Privileged => return Err(Error::NotPermitted),
    }
    Ok(())
}

/// A header goes back to what the rules and the name say. Errors: `NoAttribute` where that is what it was.
pub(super) fn remove(place: &mut Place, name: &Name, rules: &Rules) -> Result<()> {
    if get(place, name).is_none() {
        return Err(Error::NoAttribute);
    }
    let headers = &mut place.headers;
    match name {
        Name::User(name) => xattrs::set(&mut headers.metadata, name, None),
        Name::Metadata(name) => drop(headers.metadata.remove(name)),
        Name::Header(header) => {
            let given = rules.given(*header, &place.key);
            let is_stored_so = *header == Header::ContentEncoding && gzip::mentions(headers);
            let is_given = header.get(headers) == given || (header.is_always_there() && given.is_none()) || is_stored_so;
            if is_given && !media::is_chosen(headers, *header) {
                return Err(Error::NoAttribute);
            }
            header.set(headers, given);
            media::set_chosen(headers, *header, false);
        }
        Name::Own(_) | Name::Reserved | Name::Privileged => return Err(Error::NoAttribute),
    }
    Ok(())
}

/// A header's text.
fn text(value: &[u8]) -> Result<&str> {
    std::str::from_utf8(value).ok().filter(|text| !text.contains('\0')).ok_or(Error::Invalid)
}
