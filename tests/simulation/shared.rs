//! The directory in which another host writes too.

pub const DIRECTORY: &str = "shared/";
