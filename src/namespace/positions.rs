//! Where each name stands in the listings of its directory.
//!
//! A number belongs to the directory and not to one open stream: the kernel keeps listings for all who open a directory, so
//! that one of them may go on under a position that was another's. A name keeps its number from listing to listing, new
//! ones come behind: whoever goes on from a number sees each name that stayed once. Hence listings are in the order of their
//! names only until some are added; with nobody in the midst of one, they are numbered anew.

use std::collections::HashMap;
use std::sync::Arc;

/// `.` and `..` come before all names.
const DOTS: u64 = 2;

#[derive(Default)]
pub struct Positions {
    numbers: HashMap<Arc<str>, u64>,
    /// How many numbers were given after those of the dots.
    given: u64,
}

impl Positions {
    /// The numbers of `names`, all above those of `.` (1) and `..` (2). A name that isn't among them loses its own.
    pub fn of<'a>(&mut self, names: impl Iterator<Item = &'a Arc<str>>) -> Vec<u64> {
        let mut old = std::mem::take(&mut self.numbers);
        let mut number = |name: &Arc<str>| {
            let number = old.remove(name).unwrap_or_else(|| {
                self.given += 1;
                DOTS + self.given
            });
            self.numbers.insert(Arc::clone(name), number);
            number
        };
        names.map(&mut number).collect()
    }

    /// Nobody is in the midst of a listing.
    pub fn forget(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(positions: &mut Positions, names: &[&str]) -> Vec<u64> {
        let names: Vec<Arc<str>> = names.iter().map(|name| Arc::from(*name)).collect();
        positions.of(names.iter())
    }

    #[test]
    fn what_stays_keeps_its_number_and_what_comes_is_behind() {
        let mut positions = Positions::default();
        assert_eq!(of(&mut positions, &["b", "d", "f"]), [3, 4, 5]);
        assert_eq!(of(&mut positions, &["a", "d", "f"]), [6, 4, 5], "b is gone, a is new");
        assert_eq!(of(&mut positions, &["b", "d"]), [7, 4], "b comes again");
        positions.forget();
        assert_eq!(of(&mut positions, &["a", "b"]), [3, 4]);
    }
}
