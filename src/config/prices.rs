//! What a store asks for requests and traffic: list prices, or the file's own table `[prices]`. Pure.

use toml::de::{DeTable, DeValue};

use super::layers::{line, nearest_of};
use super::{ConfigError, error};
use crate::daemon::Prices;

pub(super) const TABLE: &str = "prices";
const NAMES: [&str; 3] = ["write", "read", "sent"];

/// Read on 2026-11-22: R2 (Standard), and S3 Standard in us-east-1, where traffic is that to the internet.
const R2: Prices = Prices { write: 4.50, read: 0.36, sent: 0.0 };
const AWS: Prices = Prices { write: 5.00, read: 0.40, sent: 0.09 };

/// None where nobody says what this store costs.
pub(super) fn listed(r2: bool, has_endpoint: bool) -> Option<Prices> {
    match (r2, has_endpoint) {
        (true, _) => Some(R2),
        (false, false) => Some(AWS),
        (false, true) => None,
    }
}

/// The file's table; what it leaves out costs nothing. None: there is no such table.
pub(super) fn parse(path: &str, text: &str, document: &DeTable<'_>) -> Result<Option<Prices>, ConfigError> {
    let at = |offset: usize| format!("{path}, line {}", line(text, offset));
    let Some((_, value)) = document.iter().find(|(name, _)| name.get_ref() == TABLE) else { return Ok(None) };
    let Some(table) = value.get_ref().as_table() else {
        return Err(error(format!("{}: write [prices] and below it lines like write = 5.00", at(value.span().start))));
    };
    let mut prices = Prices { write: 0.0, read: 0.0, sent: 0.0 };
    for (name, value) in table {
        let place = at(name.span().start);
        let dollars = match value.get_ref() {
            DeValue::Integer(number) => number.as_str().parse().ok(),
            DeValue::Float(number) => number.as_str().parse().ok(),
            _ => None,
        };
        let Some(dollars) = dollars.filter(|dollars: &f64| dollars.is_finite() && *dollars >= 0.0) else {
            return Err(error(format!("{place}: [prices] {} takes dollars like 5.00", name.get_ref())));
        };
        match name.get_ref().as_ref() {
            "write" => prices.write = dollars,
            "read" => prices.read = dollars,
            "sent" => prices.sent = dollars,
            other => return Err(error(format!("{place}: there is no price {other:?}{}", nearest_of(other, NAMES)))),
        }
    }
    Ok(Some(prices))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prices(text: &str) -> Result<Option<Prices>, ConfigError> {
        parse("m.toml", text, DeTable::parse(text).expect("TOML").get_ref())
    }

    #[test]
    fn a_table_replaces_the_list() {
        assert_eq!(prices("ttl = '1s'"), Ok(None));
        assert_eq!(prices("[prices]\nwrite = 1\nsent = 0.05"), Ok(Some(Prices { write: 1.0, read: 0.0, sent: 0.05 })));
        assert_eq!((listed(true, true), listed(false, false), listed(false, true)), (Some(R2), Some(AWS), None));
    }

    #[test]
    fn mistakes_name_their_line() {
        for (text, part) in [
            ("prices = 5", "line 1: write [prices]"),
            ("[prices]\nwrite = 'x'", "line 2: [prices] write takes dollars"),
            ("[prices]\nwrite = -1", "takes dollars"),
            ("[prices]\nraed = 1", "line 2: there is no price \"raed\"; did you mean read?"),
        ] {
            let error = prices(text).expect_err("refused").to_string();
            assert!(error.contains(part), "{error}");
        }
    }
}
