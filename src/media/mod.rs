//! What an object is served with: Content-Type, Cache-Control and the like, by name, by bytes, by rule and by wish.
//!
//! ```text
//! kinds   Content-Type by extension, and by the first bytes where there is none
//! header  the headers that can be chosen, and which of them somebody has chosen for one file
//! rules   headers by path pattern, from the configuration file
//! gzip    objects that are stored compressed, and what marks them
//! ```
//!
//! Pure. A header that was chosen for one file (by extended attribute) wins over a rule, that over the guess by name, and
//! the guess by name over the one by bytes. A type is always sent: R2 guesses one from the body otherwise.

pub mod gzip;
mod header;
mod kinds;
mod rules;

pub use header::{Header, is_chosen, is_own_metadata, set_chosen};
pub use kinds::{DEFAULT_TYPE, DIRECTORY_TYPE, SNIFF_BYTES, by_name, content_type, guess};
pub use rules::{RuleError, Rules, RulesBuilder};
