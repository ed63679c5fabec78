//! What happened, line by line, and the digest of it.

use std::cell::RefCell;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::rc::Rc;
use std::time::Duration;

#[derive(Clone, Default)]
pub struct Trace(Rc<RefCell<Vec<String>>>);

impl Trace {
    pub fn add(&self, at: Duration, text: String) {
        if std::env::var_os("MEDIAFS_SIM_LIVE").is_some() {
            eprintln!("{:>9.3} {text}", at.as_secs_f64());
        }
        self.0.borrow_mut().push(format!("{:>9.3} {text}", at.as_secs_f64()));
    }

    pub fn lines(&self) -> Vec<String> {
        self.0.borrow().clone()
    }

    /// Of all lines; the same seed gives the same.
    pub fn digest(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.0.borrow().hash(&mut hasher);
        hasher.finish()
    }
}
