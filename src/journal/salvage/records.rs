//! The records of one page of a SQLite database. Pure, and never surprised: what makes no sense is passed over.
//!
//! Only the parts of the format that the journal uses: no indexes, UTF-8, pages of 4 KiB without reserved bytes. Source:
//! "Database File Format" on sqlite.org.

use rusqlite::types::Value;

use super::pages::Pages;

/// What a page's first byte says; interior pages of tables with row numbers carry no rows.
const TABLE_LEAF: u8 = 0x0d;
const INDEX_LEAF: u8 = 0x0a;
const INDEX_INTERIOR: u8 = 0x02;

/// The first page begins with the database's own header.
const FILE_HEADER_BYTES: usize = 100;

/// A row as it lies on its page.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// None: of a table without row numbers.
    pub row_number: Option<i64>,
    pub values: Vec<Value>,
}

/// All records of page `number`, and how many of its cells can't be read.
pub fn records(pages: &Pages<'_>, number: u32) -> (Vec<Record>, usize) {
    let Some(page) = pages.get(number) else { return (Vec::new(), 0) };
    let start = if number == 1 { FILE_HEADER_BYTES } else { 0 };
    let kind = page[start];
    let header_bytes = match kind {
        TABLE_LEAF | INDEX_LEAF => 8,
        INDEX_INTERIOR => 12,
        _ => return (Vec::new(), 0),
    };
    let cells = usize::from(u16::from_be_bytes([page[start + 3], page[start + 4]]));
    let places = page[start + header_bytes..].chunks_exact(2).take(cells);
    let read: Vec<Option<Record>> =
        places.map(|place| record(pages, page, kind, usize::from(u16::from_be_bytes([place[0], place[1]])))).collect();
    let unreadable = read.iter().filter(|record| record.is_none()).count();
    (read.into_iter().flatten().collect(), unreadable)
}

fn record(pages: &Pages<'_>, page: &[u8], kind: u8, at: usize) -> Option<Record> {
    let mut rest = page.get(at..)?;
    if kind == INDEX_INTERIOR {
        rest = rest.get(4..)?;
    }
    let length = usize::try_from(varint(&mut rest)?).ok()?;
    let row_number = if kind == TABLE_LEAF { Some(varint(&mut rest)? as i64) } else { None };
    let payload = payload(pages, page.len(), kind, length, rest)?;
    Some(Record { row_number, values: values(&payload)? })
}

/// The part on the page, and what follows on overflow pages.
fn payload(pages: &Pages<'_>, usable: usize, kind: u8, length: usize, rest: &[u8]) -> Option<Vec<u8>> {
    let most = if kind == TABLE_LEAF { usable - 35 } else { (usable - 12) * 64 / 255 - 23 };
    if length <= most {
        return rest.get(..length).map(<[u8]>::to_vec);
    }
    let least = (usable - 12) * 32 / 255 - 23;
    let wished = least + (length - least) % (usable - 4);
    let here = if wished <= most { wished } else { least };
    let mut payload = rest.get(..here)?.to_vec();
    let mut next = u32::from_be_bytes(rest.get(here..here + 4)?.try_into().ok()?);
    while payload.len() < length {
        // Each page adds something or ends it, so that a circle ends too.
        let page = pages.get(next)?;
        let part = (length - payload.len()).min(usable - 4);
        payload.extend_from_slice(page.get(4..4 + part)?);
        next = u32::from_be_bytes(page.get(..4)?.try_into().ok()?);
    }
    Some(payload)
}

fn values(payload: &[u8]) -> Option<Vec<Value>> {
    let mut rest = payload;
    let header_bytes = usize::try_from(varint(&mut rest)?).ok()?;
    let mut types = payload.get(payload.len() - rest.len()..header_bytes)?;
    let mut body = payload.get(header_bytes..)?;
    let mut values = Vec::new();
    while !types.is_empty() {
        values.push(value(varint(&mut types)?, &mut body)?);
    }
    Some(values)
}

fn value(kind: u64, body: &mut &[u8]) -> Option<Value> {
    let length = match kind {
        0 | 8 | 9 => 0,
        1..=4 => kind as usize,
        5 => 6,
        6 | 7 => 8,
        10 | 11 => return None,
        _ => usize::try_from((kind - 12) / 2).ok()?,
    };
    let bytes = body.split_off(..length)?;
    Some(match kind {
        0 => Value::Null,
        8 => Value::Integer(0),
        9 => Value::Integer(1),
        7 => Value::Real(f64::from_be_bytes(bytes.try_into().ok()?)),
        1..=6 => {
            let sign = if bytes[0] & 0x80 == 0 { 0 } else { -1 };
            Value::Integer(bytes.iter().fold(sign, |number, byte| number << 8 | i64::from(*byte)))
        }
        _ if kind.is_multiple_of(2) => Value::Blob(bytes.to_vec()),
        _ => Value::Text(String::from_utf8(bytes.to_vec()).ok()?),
    })
}

/// Up to nine bytes, seven bits each, the ninth with eight.
fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for at in 0..9 {
        let byte = *bytes.split_off_first()?;
        if at == 8 {
            return Some(number << 8 | u64::from(byte));
        }
        number = number << 7 | u64::from(byte & 0x7f);
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}
