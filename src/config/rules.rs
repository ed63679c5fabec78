//! Headers by path pattern, as the configuration file says them:
//!
//! ```toml
//! [cache-control]
//! "static/**" = "public, max-age=31536000, immutable"
//!
//! [metadata]
//! "invoices/**" = { department = "sales" }
//!
//! [gzip]
//! "*.{css,js,svg}" = true
//! ```
//!
//! Each header has a table of its own; in each the first pattern that matches counts. Pure.

use std::collections::BTreeMap;

use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

use super::{ConfigError, error, values};
use crate::fs::is_settable_metadata;
use crate::media::{Header, Rules, RulesBuilder, gzip};

const METADATA: &str = "metadata";
const GZIP: &str = "gzip";

/// Metadata is scarce (2 KiB on S3, all together), and extended attributes need some too.
const METADATA_LIMIT_BYTES: usize = 512;

/// True for the name of a table of rules.
pub(super) fn is_table(name: &str) -> bool {
    name == METADATA || name == GZIP || Header::of_name(name).is_some()
}

/// All names of such tables.
pub(super) fn tables() -> impl Iterator<Item = &'static str> {
    Header::ALL.into_iter().map(Header::name).chain([METADATA, GZIP])
}

/// The rules of a file that is TOML. Each error names the line and says what to write instead.
pub(super) fn parse(path: &str, text: &str, document: &DeTable<'_>) -> Result<Rules, ConfigError> {
    let at = |offset: usize| format!("{path}, line {}", super::layers::line(text, offset));
    let mut rules = RulesBuilder::default();
    for (name, value) in document.iter().filter(|(name, _)| is_table(name.get_ref())) {
        let name = name.get_ref();
        let Some(table) = value.get_ref().as_table() else {
            let example = match name.as_ref() {
                METADATA => "{ name = \"value\" }",
                GZIP => "true",
                _ => "\"value\"",
            };
            return Err(error(format!("{}: write [{name}] and below it lines like \"static/**\" = {example}", at(value.span().start))));
        };
        for (pattern, value) in in_order(table) {
            let said = |problem: String| error(format!("{}: [{name}] {:?}: {problem}", at(pattern.span().start), pattern.get_ref()));
            add(&mut rules, name, pattern.get_ref(), value.get_ref()).map_err(said)?;
        }
    }
    rules.build().map_err(|problem| error(format!("{path}: the patterns are too many or too long: {problem}")))
}

/// As they stand in the file.
fn in_order<'a, 'i>(table: &'a DeTable<'i>) -> Vec<(&'a Spanned<DeString<'i>>, &'a Spanned<DeValue<'i>>)> {
    let mut rows: Vec<_> = table.iter().collect();
    rows.sort_by_key(|(pattern, _)| pattern.span().start);
    rows
}

fn add(rules: &mut RulesBuilder, table: &str, pattern: &str, value: &DeValue<'_>) -> Result<(), String> {
    match Header::of_name(table) {
        Some(header) => {
            let value = value.as_str().ok_or("write the value as a text in quotes")?;
            rules.header(header, pattern, value)
        }
        None if table == GZIP => rules.gzip(pattern, gzip_from(value)?),
        None => rules.metadata(pattern, pairs(value)?),
    }
}

/// From which size on files are compressed.
fn gzip_from(value: &DeValue<'_>) -> Result<Option<u64>, &'static str> {
    const WRONG: &str = "write true, false, or the size like \"4KiB\" below which it is not worth it";
    match value {
        DeValue::Boolean(true) => Ok(Some(gzip::LEAST_BYTES)),
        DeValue::Boolean(false) => Ok(None),
        DeValue::String(text) => values::size(text).map(Some).map_err(|_| WRONG),
        _ => Err(WRONG),
    }
}

fn pairs(value: &DeValue<'_>) -> Result<BTreeMap<String, String>, String> {
    let table = value.as_table().ok_or("write the metadata as { name = \"value\" }")?;
    let mut pairs = BTreeMap::new();
    for (name, value) in table {
        let name = name.get_ref();
        let value = value.get_ref().as_str().ok_or_else(|| format!("write the value of {name} as a text in quotes"))?;
        if !is_settable_metadata(name) {
            return Err(format!(
                "{name:?} can't be the name of metadata: small letters, digits, - and _, and none that carries mode, owner or times"
            ));
        }
        pairs.insert(name.to_string(), value.to_owned());
    }
    let size: usize = pairs.iter().map(|(name, value)| name.len() + value.len()).sum();
    if size > METADATA_LIMIT_BYTES { Err(format!("{size} bytes of metadata; at most {METADATA_LIMIT_BYTES}")) } else { Ok(pairs) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{Key, ObjectHeaders};

    fn rules(text: &str) -> Result<Rules, ConfigError> {
        parse("m.toml", text, DeTable::parse(text).expect("TOML").get_ref())
    }

    fn filled(rules: &Rules, key: &str) -> ObjectHeaders {
        let mut headers = ObjectHeaders::default();
        rules.fill(&mut headers, &Key::from(key), None);
        headers
    }

    #[test]
    fn the_first_pattern_that_matches_counts() {
        let rules = rules(
            "ttl = '1s'\n[cache-control]\n'z/never/**' = 'no-store'\n'static/**' = 'public, max-age=31536000, immutable'\n'**' = 'max-age=60'\n\
             [content-disposition]\n'*.pdf' = 'attachment'\n[content-type]\n'*.glb' = 'model/gltf-binary'\n[storage-class]\n\
             'old/*' = 'STANDARD_IA'\n[content-encoding]\n'*.{svgz,tgz}' = 'gzip'\n[content-language]\n'/index.html' = 'de'\n\
             [metadata]\n'old/**' = { team = 'web', note = 'a b' }\n",
        )
        .expect("valid");
        let cache = |key| filled(&rules, key).cache_control.unwrap_or_default();
        assert_eq!(cache("static/css/a.css"), "public, max-age=31536000, immutable");
        assert_eq!((cache("staticx/a").as_str(), cache("z/never/a").as_str()), ("max-age=60", "no-store"));
        let disposition = |key| filled(&rules, key).content_disposition;
        assert_eq!(disposition("a.pdf").as_deref(), Some("attachment"), "a name at the top");
        assert_eq!(disposition("deep/er/a.pdf").as_deref(), Some("attachment"), "a name anywhere");
        assert_eq!(disposition("a.pdf/b"), None);
        assert_eq!(filled(&rules, "x/a.glb").content_type.as_deref(), Some("model/gltf-binary"));
        assert_eq!(filled(&rules, "old/a").storage_class.as_deref(), Some("STANDARD_IA"));
        assert_eq!(filled(&rules, "old/b/a").storage_class, None, "* stays in its directory");
        assert_eq!(filled(&rules, "old/b/a").metadata, [("note".into(), "a b".into()), ("team".into(), "web".into())].into());
        assert_eq!(filled(&rules, "a.svgz").content_encoding.as_deref(), Some("gzip"));
        assert_eq!(filled(&rules, "index.html").content_language.as_deref(), Some("de"));
        assert_eq!(filled(&rules, "sub/index.html").content_language, None, "a slash in front: at the top only");
    }

    #[test]
    fn gzip_is_for_what_its_table_says() {
        let rules = rules("[gzip]\n'vendor/**' = false\n'*.css' = true\n'*.svg' = '4KiB'\n").expect("valid");
        for (key, least) in [("a.css", Some(1024)), ("x/a.svg", Some(4096)), ("vendor/a.css", None), ("a.js", None)] {
            assert_eq!(rules.gzip_from(&Key::from(key)), least, "{key}");
        }
        assert!(rules.has_gzip() && !Rules::default().has_gzip());
    }

    #[test]
    fn mistakes_are_named_with_their_line_and_what_to_write() {
        for (text, line, part) in [
            ("[cache-control]\n'a/' = 'x'", 2, "write a/** for everything below it"),
            ("[cache-control]\n\n'a[' = 'x'", 3, "unclosed character class"),
            ("[cache-control]\n'' = 'x'", 2, "write a pattern like"),
            ("[cache-control]\n'a' = 5", 2, "a text in quotes"),
            ("cache-control = 'no-store'", 1, "write [cache-control]"),
            ("[content-type]\n'*.x' = 'jpeg'", 2, "a type like image/jpeg"),
            ("[storage-class]\n'**' = 'COLD'", 2, "STANDARD_IA"),
            ("[content-disposition]\n'**' = 'f\u{fc}r'", 2, "ASCII"),
            ("gzip = true", 1, "write [gzip] and below it lines like \"static/**\" = true"),
            ("[gzip]\n'*.css' = 5", 2, "[gzip] \"*.css\": write true, false, or the size like \"4KiB\""),
            ("[gzip]\n'*.css' = 'yes'", 2, "write true, false, or"),
            ("[gzip]\n'a/' = true", 2, "write a/** for everything below it"),
            ("[metadata]\n'**' = 'x'", 2, "{ name = \"value\" }"),
            ("[metadata]\n'**' = { mode = '33188' }", 2, "mode, owner or times"),
            ("[metadata]\n'**' = { 'a b' = 'x' }", 2, "small letters"),
        ] {
            let error = rules(text).expect_err("refused").to_string();
            assert!(error.starts_with(&format!("m.toml, line {line}: ")) && error.contains(part) && !error.contains('\n'), "{error}");
        }
    }
}
