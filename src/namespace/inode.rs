//! One inode: what it is, where it hangs, and which version of which object is behind it.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use super::AccessNote;
use super::ahead::LookAhead;
use super::attributes;
use super::positions::Positions;
use crate::cache::LocalFile;
use crate::clock;
use crate::types::{Key, ObjectHeaders, PackedHeaders, Version};

pub type Ino = u64;
pub const ROOT: Ino = 1;

/// When the bucket says that a version was written. An upload's answer doesn't tell, so that ours is only about known
/// until a HEAD or a listing shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Modified {
    At(SystemTime),
    About(SystemTime),
}

impl Modified {
    pub fn time(self) -> SystemTime {
        match self {
            Self::At(time) | Self::About(time) => time,
        }
    }

    /// True where an object that the bucket dates `listed` can be the one that we know.
    pub fn matches(self, listed: SystemTime) -> bool {
        match self {
            Self::At(time) => time == listed,
            Self::About(time) => clock::can_be_ours(time, listed),
        }
    }
}

pub struct Inode {
    pub ino: Ino,
    /// The directory and the name it hangs under; None for the root and for what is unlinked.
    pub place: Option<(Ino, Arc<str>)>,
    /// What the kernel holds.
    pub lookups: u64,
    /// Open handles.
    pub opens: u32,
    /// Permission bits without the type.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub atime: SystemTime,
    pub mtime: SystemTime,
    pub ctime: SystemTime,
    /// Shared with the open handles, where there are any.
    pub(super) access_note: Option<AccessNote>,
    /// Mode, owner and times are those of the object's metadata, not only the defaults.
    pub known: bool,
    /// Nobody here needs it: it goes as soon as the kernel has forgotten it.
    pub(super) leaving: bool,
    /// When the bucket last confirmed it; None: never.
    pub checked: Option<Instant>,
    pub node: Node,
}

pub enum Node {
    File(File),
    /// Boxed: there are far fewer of them, and they are larger.
    Directory(Box<Directory>),
    Symlink(Symlink),
}

#[derive(Default)]
pub struct File {
    /// The version in the bucket that this inode shows or builds on.
    pub version: Option<Version>,
    pub modified: Option<Modified>,
    /// Of `version`; meaningful when the inode's attributes are known.
    pub headers: PackedHeaders,
    pub local: Option<Arc<LocalFile>>,
    /// The kernel may hold pages of it, so that reads need not get here.
    pub pages: bool,
    /// The kernel may hold pages of an older version.
    pub pages_stale: bool,
}

#[derive(Default)]
pub struct Directory {
    pub children: BTreeMap<Arc<str>, Child>,
    /// How many of the children are directories.
    pub subdirectories: u32,
    /// When a complete listing was begun; None: there is none.
    pub listed: Option<Instant>,
    /// When it was made here, with nothing in it.
    pub made: Option<Instant>,
    /// New names made here of late.
    pub made_of_late: Streak,
    pub peeks: Box<Peeks>,
    /// Its names were all known at some time: while the bucket can't be asked, that holds.
    pub complete: bool,
    /// Whether the marker object `dir/` is in the bucket; None: not known.
    pub marker: Option<bool>,
    /// When the bucket last showed something below it.
    pub proven: Option<Instant>,
    /// The marker's version where it holds bytes, as some programs' do: they are kept.
    pub filled: Option<Version>,
    pub headers: PackedHeaders,
    /// The name found missing last, and when that answer came.
    pub last_missing: Option<(Arc<str>, Instant)>,
    pub positions: Positions,
    /// Who walks through the names.
    pub ahead: LookAhead,
    /// Recent lookups of names not known before: above zero they mostly hit, below they mostly missed.
    pub luck: i8,
}

/// One LIST instead of many questions for names that aren't there.
#[derive(Default)]
pub struct Peeks {
    /// Names looked for of late that were not there.
    pub missed: Streak,
    /// When a LIST was to show all names of the directory.
    pub last: Option<Instant>,
    /// When there were more of them, or it was refused.
    pub too_wide: Option<Instant>,
    /// Names asked for one by one since all were listed for those who make new ones.
    pub asked: usize,
    /// They are being listed so.
    pub is_under_way: bool,
    /// New names in a row that belong behind all others, or nearly so, since that was listed last.
    pub appended: u32,
    /// When one LIST was to show the last names, and what it showed.
    pub tail_begun: Option<Instant>,
    pub tail: Option<Box<Tail>>,
}

/// What one LIST showed of a directory from some name on. What was neither known here nor shown was not there.
pub struct Tail {
    /// The directory's.
    pub directory: Key,
    /// The last name before the first one that it could show.
    pub after: Arc<str>,
    /// The key that it ended with; None: there were no more.
    pub last: Option<Key>,
    /// Shown, and not known here.
    pub unknown: HashSet<Arc<str>>,
    /// Before it was sent.
    pub asked: Instant,
}

impl Tail {
    /// Nothing had this name: no object, and nothing that would make it a directory.
    pub fn lacks(&self, directory: &Key, name: &str) -> bool {
        let is_covered = self.last.as_ref().is_none_or(|last| directory.child(name).as_directory() <= *last);
        *self.after < *name && is_covered && self.directory == *directory && !self.unknown.contains(name)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Child {
    Inode(Ino),
    /// The bucket had no such name then: when it was asked.
    Missing(Instant),
}

#[derive(Default)]
pub struct Symlink {
    pub version: Option<Version>,
    pub modified: Option<Modified>,
    pub headers: PackedHeaders,
    /// None: the body of the object has to be read.
    pub target: Option<String>,
    /// A program on this host made it so.
    pub made_here: bool,
}

/// A program that does so many things of a kind in a directory within [`SHORT`] goes on doing so.
const MANY: u32 = 8;
const SHORT: Duration = Duration::from_secs(1);
/// So long a directory that was too wide for one LIST is not tried again.
const WIDE: Duration = Duration::from_secs(60);
/// So long what is below a directory proves that it is there; then it is asked for itself, because another host may have
/// given it a marker with other attributes.
const PROOF: Duration = Duration::from_secs(60);

/// Things of a kind that happen one after the other: since when, and how many.
#[derive(Clone, Copy, Debug, Default)]
pub struct Streak(Option<(Instant, u32)>);

impl Streak {
    pub fn count(&mut self, now: Instant) {
        self.0 = match self.0 {
            Some((since, count)) if now.duration_since(since) < SHORT => Some((since, count + 1)),
            Some((_, count)) if count >= MANY => Some((now, MANY)),
            _ => Some((now, 1)),
        };
    }

    pub fn goes_on(&self, now: Instant) -> bool {
        self.0.is_some_and(|(since, count)| count >= MANY && now.duration_since(since) < 2 * SHORT)
    }
}

impl Inode {
    /// When the bucket last showed that it is there. A directory without a marker is nothing but what is below it, and a
    /// HEAD for a file costs a twelfth of the LIST that would ask for the directory.
    pub fn confirmed(&self) -> Option<Instant> {
        let checked = self.checked?;
        let unmarked = self.directory().filter(|directory| directory.marker == Some(false));
        let proven = unmarked.and_then(|directory| directory.proven).filter(|proven| *proven < checked + PROOF);
        Some(proven.map_or(checked, |proven| checked.max(proven)))
    }
}

impl Directory {
    /// The bucket has this marker, or none.
    pub fn see_marker(&mut self, marker: Option<&Version>) {
        self.marker = Some(marker.is_some());
        self.filled = marker.filter(|marker| marker.size > 0).cloned();
    }

    /// Some of its names leave memory: what isn't there need not be missing.
    pub(super) fn forget_names(&mut self) {
        (self.listed, self.made, self.complete) = (None, None, false);
        self.peeks.tail = None;
    }

    /// Some program is filling the directory now: that its new names are new need not be asked one by one.
    pub fn is_filling(&self, now: Instant) -> bool {
        self.made_of_late.goes_on(now)
    }

    /// Some program looks for one name after the other that isn't there: one LIST may tell of all of them, for as long as an
    /// absence is believed.
    pub fn is_worth_a_peek(&self, absence: Duration, now: Instant) -> bool {
        let since = |time: Option<Instant>| time.map(|time| now.duration_since(time));
        self.peeks.missed.goes_on(now)
            && since(self.peeks.last).is_none_or(|since| since >= absence)
            && since(self.peeks.too_wide).is_none_or(|since| since >= WIDE)
    }

    /// When all its names were known last.
    pub fn complete_at(&self) -> Option<Instant> {
        self.listed.max(self.made)
    }
}

impl Inode {
    pub fn directory(&self) -> Option<&Directory> {
        match &self.node {
            Node::Directory(directory) => Some(directory),
            _ => None,
        }
    }

    pub fn file(&self) -> Option<&File> {
        match &self.node {
            Node::File(file) => Some(file),
            _ => None,
        }
    }

    pub fn is_directory(&self) -> bool {
        matches!(self.node, Node::Directory(_))
    }

    /// The version in the bucket behind a file or a symlink.
    pub fn version(&self) -> Option<&Version> {
        match &self.node {
            Node::File(file) => file.version.as_ref(),
            Node::Symlink(link) => link.version.as_ref(),
            Node::Directory(_) => None,
        }
    }

    /// The version that the bucket holds of it, as far as anybody here knows. A file that was just uploaded has it as the
    /// base of its clean bytes before word of it gets here.
    pub fn held(&self) -> Option<Version> {
        let local = self.file().and_then(|file| file.local.as_ref());
        local.filter(|local| !local.is_dirty()).and_then(|local| local.base()).or_else(|| self.version().cloned())
    }

    /// Makes `held` the version. For an inode that leaves its name: word of an upload, which is yet to come, looks for it there,
    /// and what is asked of the bucket next names the version that it shows.
    pub fn take_held(&mut self, now: SystemTime) {
        if let Some(held) = self.held().filter(|held| self.version() != Some(held)) {
            self.set_version(held, Modified::About(now));
        }
    }

    pub fn modified(&self) -> Option<Modified> {
        match &self.node {
            Node::File(file) => file.modified,
            Node::Symlink(link) => link.modified,
            Node::Directory(_) => None,
        }
    }

    pub fn set_version(&mut self, mut new: Version, modified: Modified) {
        // The same bytes; who has only seen them listed knows how much is stored of them.
        if let Some(known) = self.version().filter(|known| self.known && known.etag == new.etag) {
            new.size = known.size;
        }
        self.put_version(new, modified);
    }

    /// With the size that it says, whatever was known: a store can have been wrong about that before.
    pub(super) fn put_version(&mut self, new: Version, modified: Modified) {
        match &mut self.node {
            Node::File(file) => (file.version, file.modified) = (Some(new), Some(modified)),
            Node::Symlink(link) => (link.version, link.modified) = (Some(new), Some(modified)),
            Node::Directory(_) => {}
        }
    }

    pub fn headers(&self) -> ObjectHeaders {
        match &self.node {
            Node::File(file) => file.headers.get(),
            Node::Symlink(link) => link.headers.get(),
            Node::Directory(directory) => directory.headers.get(),
        }
    }

    fn kept_headers(&mut self) -> &mut PackedHeaders {
        match &mut self.node {
            Node::File(file) => &mut file.headers,
            Node::Symlink(link) => &mut link.headers,
            Node::Directory(directory) => &mut directory.headers,
        }
    }

    pub fn set_headers(&mut self, headers: ObjectHeaders) {
        *self.kept_headers() = headers.into();
    }

    pub fn change_headers<T>(&mut self, change: impl FnOnce(&mut ObjectHeaders) -> T) -> T {
        self.kept_headers().change(change)
    }

    /// Its bytes change: metadata that describes them goes.
    pub fn forget_content(&mut self) {
        let headers = self.kept_headers();
        if attributes::describes_content(headers) {
            headers.change(attributes::forget_content);
        }
    }

    /// In bytes, as stat shows it.
    pub fn size(&self) -> u64 {
        match &self.node {
            Node::File(file) => match (&file.local, &file.version) {
                (Some(local), _) => local.size(),
                (None, Some(version)) => version.size,
                (None, None) => 0,
            },
            Node::Symlink(link) => link.target.as_ref().map_or_else(|| link.version.as_ref().map_or(0, |v| v.size), |t| t.len() as u64),
            Node::Directory(_) => 0,
        }
    }
}
