//! Where options come from, and which source wins: flag, then `-o`, then environment, then file, then default. Pure.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use toml::de::DeTable;

use super::options::{OPTIONS, own_name};
use super::{ConfigError, error, prices, rules};
use crate::daemon::Prices;
use crate::media::Rules;

/// Who said something, as a message names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    Flag,
    MountOption,
    Environment,
    File(String),
    Default,
}

/// The text of an option and where it came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Given {
    pub name: &'static str,
    pub text: String,
    pub origin: Origin,
}

impl fmt::Display for Given {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, text, origin } = self;
        match origin {
            Origin::Flag | Origin::Default => write!(f, "--{name} {text}"),
            Origin::MountOption => write!(f, "-o {}={text}", name.replace('-', "_")),
            Origin::Environment => write!(f, "MEDIAFS_{}={text}", name.replace('-', "_").to_uppercase()),
            Origin::File(path) => write!(f, "{name} = {text:?} in {path}"),
        }
    }
}

/// One source's options by name; of a file also its tables.
#[derive(Clone, Debug, Default)]
pub struct Layer {
    options: BTreeMap<&'static str, Given>,
    tables: Option<Tables>,
}

#[derive(Clone, Debug)]
struct Tables {
    rules: Arc<Rules>,
    prices: Option<Prices>,
}

/// What a file says, and what is wrong with it.
#[derive(Default)]
pub(super) struct Read {
    /// In the order of their names.
    pub options: Vec<(&'static str, String)>,
    pub rules: Rules,
    pub prices: Option<Prices>,
    pub mistakes: Vec<ConfigError>,
}

/// Err: it isn't TOML.
pub(super) fn read(path: &str, text: &str) -> Result<Read, ConfigError> {
    let broken = |problem: toml::de::Error| {
        let line = line(text, problem.span().map_or(0, |span| span.start));
        error(format!("{path}, line {line}: {}", problem.message().replace('\n', "; ")))
    };
    let table: toml::Table = text.parse().map_err(broken)?;
    let document = DeTable::parse(text).map_err(broken)?;
    let mut read = Read::default();
    for (name, value) in table.into_iter().filter(|(name, _)| !rules::is_table(name) && name != prices::TABLE) {
        match option(path, &name, value) {
            Ok(option) => read.options.push(option),
            Err(mistake) => read.mistakes.push(mistake),
        }
    }
    match rules::parse(path, text, document.get_ref()) {
        Ok(rules) => read.rules = rules,
        Err(mistake) => read.mistakes.push(mistake),
    }
    match prices::parse(path, text, document.get_ref()) {
        Ok(prices) => read.prices = prices,
        Err(mistake) => read.mistakes.push(mistake),
    }
    Ok(read)
}

fn option(path: &str, name: &str, value: toml::Value) -> Result<(&'static str, String), ConfigError> {
    if ["secret", "access-key", "access_key", "password", "token"].iter().any(|word| name.contains(word)) {
        return Err(error(format!("{path}: {name}: secrets don't belong in here; they come from where AWS' own tools take them")));
    }
    let known = own_name(name).ok_or_else(|| error(format!("{path}: there is no option {name:?}{}", nearest(name))))?;
    let text = match value {
        toml::Value::String(text) => text,
        toml::Value::Integer(number) => number.to_string(),
        toml::Value::Boolean(on) => on.to_string(),
        _ => return Err(error(format!("{path}: {name} takes a text, a number or true/false"))),
    };
    Ok((known, text))
}

impl Layer {
    /// `options` are names of the list with their texts; others are the caller's mistake and are left out.
    pub fn new<T: Into<String>>(origin: &Origin, options: impl IntoIterator<Item = (&'static str, T)>) -> Self {
        let given = |(name, text): (&'static str, T)| (name, Given { name, text: text.into(), origin: origin.clone() });
        Self { options: options.into_iter().map(given).collect(), tables: None }
    }

    /// `variable` looks an environment variable up. An empty one says nothing.
    pub fn environment(variable: &dyn Fn(&str) -> Option<String>) -> Self {
        let set = OPTIONS.iter().filter_map(|option| {
            let text = variable(&option.environment()).filter(|text| !text.is_empty())?;
            Some((option.name, text))
        });
        Self::new(&Origin::Environment, set)
    }

    /// A TOML file's text. Unknown names are refused: a misspelt option must not silently do nothing.
    pub fn file(path: &str, text: &str) -> Result<Self, ConfigError> {
        let read = read(path, text)?;
        if let Some(first) = read.mistakes.into_iter().next() {
            return Err(first);
        }
        let tables = Tables { rules: Arc::new(read.rules), prices: read.prices };
        Ok(Self { tables: Some(tables), ..Self::new(&Origin::File(path.to_owned()), read.options) })
    }

    pub fn get(&self, name: &str) -> Option<&Given> {
        self.options.get(name)
    }

    pub(super) fn set(&mut self, name: &'static str, text: String, origin: Origin) {
        self.options.insert(name, Given { name, text, origin });
    }
}

/// Counted from 1.
pub(super) fn line(text: &str, offset: usize) -> usize {
    1 + text.as_bytes().iter().take(offset).filter(|byte| **byte == b'\n').count()
}

/// `; did you mean …?` where a known name is one or two letters away.
pub(super) fn nearest(name: &str) -> String {
    nearest_of(&name.replace('_', "-"), OPTIONS.iter().map(|option| option.name).chain(rules::tables()))
}

pub(super) fn nearest_of(name: &str, known: impl IntoIterator<Item = &'static str>) -> String {
    let best = known.into_iter().map(|known| (distance(name, known), known)).min();
    best.filter(|(distance, _)| *distance <= 2).map_or_else(String::new, |(_, known)| format!("; did you mean {known}?"))
}

/// Letters to insert, delete or replace (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(row[j + 1] + 1);
        }
    }
    row[b.len()]
}

/// All sources, the strongest first.
#[derive(Clone, Debug, Default)]
pub struct Layers(pub Vec<Layer>);

impl Layers {
    /// Headers by path pattern; none where there is no file.
    pub fn rules(&self) -> Arc<Rules> {
        self.0.iter().find_map(|layer| Some(Arc::clone(&layer.tables.as_ref()?.rules))).unwrap_or_default()
    }

    /// What the file says that requests cost.
    pub fn prices(&self) -> Option<Prices> {
        self.0.iter().find_map(|layer| layer.tables.as_ref()?.prices)
    }

    /// What was said of `name`, or its default; None where nobody said anything and there is no default.
    pub fn get(&self, name: &'static str) -> Option<Given> {
        let said = self.0.iter().find_map(|layer| layer.get(name)).cloned();
        said.or_else(|| {
            let default = super::options::find(name).map(|option| option.default).filter(|default| !default.is_empty())?;
            Some(Given { name, text: default.to_owned(), origin: Origin::Default })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer(origin: Origin, text: Option<&str>) -> Layer {
        Layer::new(&origin, text.map(|text| ("ttl", text)))
    }

    #[test]
    fn the_strongest_source_wins() {
        for (flag, option, environment, file, expected) in [
            (Some("1s"), Some("2s"), Some("3s"), Some("4s"), "1s"),
            (None, Some("2s"), Some("3s"), Some("4s"), "2s"),
            (None, None, Some("3s"), Some("4s"), "3s"),
            (None, None, None, Some("4s"), "4s"),
            (None, None, None, None, "10s"),
        ] {
            let layers = Layers(vec![
                layer(Origin::Flag, flag),
                layer(Origin::MountOption, option),
                layer(Origin::Environment, environment),
                layer(Origin::File("f".into()), file),
            ]);
            assert_eq!(layers.get("ttl").map(|given| given.text).as_deref(), Some(expected));
        }
        assert_eq!(Layers::default().get("region"), None);
    }

    #[test]
    fn the_environment_has_a_name_for_every_option() {
        let layer = Layer::environment(&|name| match name {
            "MEDIAFS_CACHE_SIZE" => Some("1GiB".into()),
            "MEDIAFS_REGION" => Some(String::new()),
            _ => None,
        });
        assert_eq!(layer.get("cache-size").map(ToString::to_string).as_deref(), Some("MEDIAFS_CACHE_SIZE=1GiB"));
        assert_eq!(layer.get("region"), None);
    }

    #[test]
    fn a_file_holds_texts_numbers_and_switches() {
        let layer = Layer::file("/etc/m.toml", "cache-size = '1GiB'\nuid = 1000\nexclusive = true\n").expect("valid");
        assert_eq!(layer.get("uid").map(|given| given.text.as_str()), Some("1000"));
        assert_eq!(layer.get("exclusive").map(|given| given.text.as_str()), Some("true"));
        assert_eq!(layer.get("cache-size").map(ToString::to_string).as_deref(), Some("cache-size = \"1GiB\" in /etc/m.toml"));
    }

    #[test]
    fn mistakes_in_a_file_are_named_with_their_place() {
        for (text, part) in [
            ("cache-sise = '1GiB'", "did you mean cache-size?"),
            ("nonsense = 1", "no option \"nonsense\""),
            ("ttl = '10s'\nuid = = 3\n", "line 2"),
            ("ttl = [1]", "ttl takes a text"),
        ] {
            let error = Layer::file("m.toml", text).expect_err("refused").to_string();
            assert!(error.contains(part) && error.contains("m.toml") && !error.contains('\n'), "{error}");
        }
    }

    #[test]
    fn distance_counts_letters() {
        for (a, b, expected) in [("", "abc", 3), ("ttl", "ttl", 0), ("tll", "ttl", 1), ("cache-sise", "cache-size", 1)] {
            assert_eq!(distance(a, b), expected);
        }
    }
}
