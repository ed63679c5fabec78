//! Headers by path pattern. For each header the first pattern that matches a path decides; metadata is one header here.
//!
//! A rule speaks when a file is made, when its bytes change and when its path does. It never overrules what was chosen
//! for that very file, and a header that nobody here gave is only replaced, never taken away. What a rule gave for the
//! old path goes with a rename, if the object still has exactly that.

use std::collections::BTreeMap;

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};

use super::gzip;
use super::header::{Header, is_chosen};
use super::kinds::by_name;
use crate::types::{Key, ObjectHeaders};

/// All rules of a mount.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    headers: BTreeMap<Header, Table<String>>,
    metadata: Table<BTreeMap<String, String>>,
    gzip: Table<Option<u64>>,
}

/// What a pattern or a value should look like.
pub type RuleError = String;

#[derive(Clone, Debug, Default)]
struct Table<T> {
    patterns: GlobSet,
    /// By the number of their pattern.
    values: Vec<T>,
}

impl<T> Table<T> {
    /// The first that matches.
    fn find(&self, key: &Key) -> Option<&T> {
        if self.values.is_empty() {
            return None;
        }
        self.patterns.matches(key.as_str()).into_iter().min().and_then(|at| self.values.get(at))
    }
}

impl Rules {
    fn header(&self, header: Header, key: &Key) -> Option<&str> {
        self.headers.get(&header).and_then(|table| table.find(key)).map(String::as_str)
    }

    /// What a rule says of this header at this path; for the type, else what the name says.
    pub fn given(&self, header: Header, key: &Key) -> Option<&str> {
        let by_name = || if header == Header::ContentType { by_name(name(key)) } else { None };
        self.header(header, key).or_else(by_name)
    }

    /// True where a rule gave exactly this metadata.
    pub fn gives_metadata(&self, key: &Key, name: &str, value: &str) -> bool {
        self.metadata.find(key).and_then(|pairs| pairs.get(name)).is_some_and(|given| given == value)
    }

    /// The least size, in bytes, from which on a file at this path is stored compressed. None: it isn't.
    pub fn gzip_from(&self, key: &Key) -> Option<u64> {
        self.gzip.find(key).copied().flatten()
    }

    /// Whether anything is stored compressed.
    pub fn has_gzip(&self) -> bool {
        self.gzip.values.iter().any(Option::is_some)
    }

    /// The encoding of a file that is stored as it is.
    pub fn fill_encoding(&self, headers: &mut ObjectHeaders, key: &Key) {
        if !is_chosen(headers, Header::ContentEncoding)
            && let Some(value) = self.header(Header::ContentEncoding, key)
        {
            Header::ContentEncoding.set(headers, Some(value));
        }
    }

    /// For a file whose bytes are new. `guess` is its type by name or by bytes, where that should change.
    pub fn fill(&self, headers: &mut ObjectHeaders, key: &Key, guess: Option<&str>) {
        for header in Header::ALL.into_iter().filter(|header| !is_chosen(headers, *header)).collect::<Vec<_>>() {
            let guess = guess.filter(|_| header == Header::ContentType);
            if let Some(value) = self.header(header, key).or(guess) {
                header.set(headers, Some(value));
            }
        }
        self.add_metadata(headers, key);
    }

    /// True where [`Rules::moved`] may change something.
    pub fn differ(&self, from: &Key, to: &Key) -> bool {
        Header::ALL.into_iter().any(|header| self.given(header, from) != self.given(header, to))
            || self.metadata.find(from) != self.metadata.find(to)
    }

    /// For a file that goes from one path to another.
    pub fn moved(&self, headers: &mut ObjectHeaders, from: &Key, to: &Key) {
        for header in Header::ALL.into_iter().filter(|header| !is_chosen(headers, *header)).collect::<Vec<_>>() {
            let (old, new) = (self.given(header, from), self.given(header, to));
            let was_given = old.is_some() && old == header.get(headers);
            // A copy of compressed bytes is compressed.
            if header == Header::ContentEncoding && gzip::mentions(headers) {
                continue;
            }
            if new != old && (new.is_some() || was_given) {
                header.set(headers, new);
            }
        }
        if self.metadata.find(from) == self.metadata.find(to) {
            return;
        }
        for (name, value) in self.metadata.find(from).into_iter().flatten() {
            if headers.metadata.get(name) == Some(value) {
                headers.metadata.remove(name);
            }
        }
        self.add_metadata(headers, to);
    }

    /// What the object says of itself stays.
    fn add_metadata(&self, headers: &mut ObjectHeaders, key: &Key) {
        for (name, value) in self.metadata.find(key).into_iter().flatten() {
            headers.metadata.entry(name.clone()).or_insert_with(|| value.clone());
        }
    }
}

fn name(key: &Key) -> &str {
    key.split().map_or("", |(_, name)| name)
}

/// Takes rules in the order in which they count.
#[derive(Debug, Default)]
pub struct RulesBuilder {
    headers: BTreeMap<Header, Rows<String>>,
    metadata: Rows<BTreeMap<String, String>>,
    gzip: Rows<Option<u64>>,
}

#[derive(Debug)]
struct Rows<T> {
    patterns: GlobSetBuilder,
    values: Vec<T>,
}

impl<T> Default for Rows<T> {
    fn default() -> Self {
        Self { patterns: GlobSetBuilder::new(), values: Vec::new() }
    }
}

impl<T> Rows<T> {
    fn add(&mut self, pattern: &str, value: T) -> Result<(), RuleError> {
        self.patterns.add(glob(pattern)?);
        self.values.push(value);
        Ok(())
    }

    fn build(self) -> Result<Table<T>, RuleError> {
        let patterns = self.patterns.build().map_err(|problem| problem.to_string())?;
        Ok(Table { patterns, values: self.values })
    }
}

impl RulesBuilder {
    /// An empty value means that the header shall not be there.
    pub fn header(&mut self, header: Header, pattern: &str, value: &str) -> Result<(), RuleError> {
        header.check(value)?;
        self.headers.entry(header).or_default().add(pattern, value.to_owned())
    }

    pub fn metadata(&mut self, pattern: &str, pairs: BTreeMap<String, String>) -> Result<(), RuleError> {
        self.metadata.add(pattern, pairs)
    }

    /// `least`: files of so many bytes and more are stored compressed; None: such files are not.
    pub fn gzip(&mut self, pattern: &str, least: Option<u64>) -> Result<(), RuleError> {
        self.gzip.add(pattern, least)
    }

    pub fn build(self) -> Result<Rules, RuleError> {
        let headers = self.headers.into_iter().map(|(header, rows)| Ok((header, rows.build()?))).collect::<Result<_, RuleError>>()?;
        Ok(Rules { headers, metadata: self.metadata.build()?, gzip: self.gzip.build()? })
    }
}

/// `*` stays within a component, `**` doesn't. Without a slash it is about the name, in whatever directory.
fn glob(pattern: &str) -> Result<globset::Glob, RuleError> {
    if let Some(directory) = pattern.strip_suffix('/') {
        return Err(format!("write {directory}/** for everything below it"));
    }
    let whole = match pattern.strip_prefix('/') {
        Some(rest) => rest.to_owned(),
        None if pattern.contains('/') => pattern.to_owned(),
        None => format!("**/{pattern}"),
    };
    if pattern.trim_start_matches('/').is_empty() {
        return Err("write a pattern like static/** or *.pdf".to_owned());
    }
    GlobBuilder::new(&whole).literal_separator(true).backslash_escape(true).build().map_err(|problem| problem.kind().to_string())
}
