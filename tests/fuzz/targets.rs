//! What is tried, and what has to hold of it.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::OnceLock;
use std::time::{Duration, SystemTime};

use mediafs::cache::SpanSet;
use mediafs::config::{self, Layer, Layers, Origin, Surroundings, VfsFlags};
use mediafs::journal::{Change, Content, Desired, Journal, salvage};
use mediafs::media::gzip as compressed;
use mediafs::namespace::keys::{self as names, Listing};
use mediafs::namespace::{attributes, xattrs};
use mediafs::store::{Condition, ListPage};
use mediafs::types::{ETag, Key, ListedObject, ObjectHeaders};

fn lines(input: &[u8]) -> impl Iterator<Item = String> + '_ {
    input.split(|byte| *byte == b'\n').map(|line| String::from_utf8_lossy(line).into_owned())
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && name != "." && name != ".." && name.len() <= 255 && !name.contains(['\0', '/'])
}

/// Path and key are one and the same or nothing.
pub fn keys(input: &[u8]) {
    if let Ok(name) = names::component(OsStr::from_bytes(input)) {
        assert!(is_name(name) && name.as_bytes() == input);
    }
    for text in lines(input) {
        let key = Key::from(text.as_str());
        if names::shown_key(&key).is_ok() && !key.is_root() && text != "/" {
            assert!(text.strip_suffix('/').unwrap_or(&text).split('/').all(is_name), "{text:?}");
        }
        if let Some(marked) = names::marked_by_hadoop(&key) {
            assert!(marked.is_marker() && names::shown_key(&marked).is_ok() && names::hadoop_marker(&marked) == Some(key.clone()));
        }
        if let Some((parent, name)) = key.split().filter(|_| names::shown_key(&key).is_ok()) {
            assert_eq!(parent.child(name).as_directory(), key.as_directory());
        }
        assert!(!key.to_string().contains(char::is_control), "a key shown steers no terminal");
        let _ = (names::check_key(&key, 0), key.walks_in_windows(), names::r2_spelling(&text));
    }
}

/// Pages in any order, any page twice, are one listing; each name in it is one.
pub fn listing(input: &[u8]) {
    let mut all = lines(input);
    let directory = Key::new(all.next().unwrap_or_default()).as_directory();
    let mut pages = vec![ListPage::default()];
    for (number, line) in all.enumerate() {
        let Some(page) = pages.last_mut() else { return };
        match line.split_at_checked(1) {
            Some(("-", _)) => pages.push(ListPage::default()),
            Some(("/", rest)) => page.prefixes.push(directory.child(rest).as_directory()),
            Some(("!", rest)) => page.prefixes.push(Key::new(rest)),
            Some(("~", rest)) => page.objects.push(object(Key::new(rest), number)),
            _ => page.objects.push(object(directory.child(&line), number)),
        }
    }
    let fold = |pages: &mut dyn Iterator<Item = &ListPage>| {
        let mut listing = Listing::default();
        pages.for_each(|page| listing.add(&directory, page));
        listing
    };
    let listing = fold(&mut pages.iter());
    assert_eq!(listing, fold(&mut pages.iter().rev()));
    assert_eq!(listing, fold(&mut pages.iter().chain(&pages)));
    assert!(listing.entries.keys().all(|name| is_name(name)), "{listing:?}");
    let keys: Vec<Key> = pages.iter().flat_map(|page| &page.objects).map(|object| object.key.clone()).collect();
    let shadowed = names::shadowed(keys.iter());
    assert!(shadowed.iter().all(|key| !key.is_marker() && keys.contains(key)));
}

fn object(key: Key, number: usize) -> ListedObject {
    let last_modified = SystemTime::UNIX_EPOCH + Duration::from_secs(number as u64 % 3);
    ListedObject { key, size: number as u64, etag: ETag::new(&format!("e{number}")), last_modified, storage_class: None }
}

fn headers(input: &[u8]) -> ObjectHeaders {
    let mut headers = ObjectHeaders::default();
    for line in lines(input) {
        match line.split_once('=') {
            Some(("content-type", value)) => headers.content_type = Some(value.to_owned()),
            Some(("content-encoding", value)) => headers.content_encoding = Some(value.to_owned()),
            Some((name, value)) => drop(headers.metadata.insert(name.to_owned(), value.to_owned())),
            None => {}
        }
    }
    headers
}

/// Nothing in metadata gives more than plain permissions, and what was understood is written so that it is understood again.
pub fn metadata(input: &[u8]) {
    let headers = headers(input);
    let posix = attributes::decode(&headers);
    let is_directory = posix.kind == Some(attributes::FileType::Directory);
    assert!(posix.mode.is_none_or(|mode| mode & !(if is_directory { 0o3777 } else { 0o777 }) == 0), "{posix:?}");
    assert!(posix.uid != Some(u32::MAX) && posix.gid != Some(u32::MAX));
    assert!(posix.symlink.as_ref().is_none_or(|target| !target.is_empty() && target.len() <= 4095 && !target.contains('\0')));
    let defaults = attributes::Defaults { uid: 7, gid: 7, file_mode: 0o644, dir_mode: 0o755 };
    let mut written = headers.clone();
    attributes::update(&mut written, &posix, &defaults);
    let again = attributes::decode(&written);
    assert_eq!(again.mtime, posix.mtime);
    assert!(again.mode == posix.mode || again.mode.is_none() || posix.kind == Some(attributes::FileType::Symlink), "{posix:?} {again:?}");
    let kept = xattrs::decode(&headers.metadata);
    assert!(kept.keys().all(|name| name.starts_with("user.") && name.len() <= 255 && !name.contains('\0')), "{kept:?}");
    let mut changed: BTreeMap<String, String> = headers.metadata.clone();
    xattrs::set(&mut changed, "user.fuzz", Some(input));
    assert_eq!(xattrs::get(&changed, "user.fuzz").as_deref(), Some(input));
    assert!(compressed::original_size(&headers).is_none_or(|size| size <= compressed::LIMIT_BYTES));
}

/// A mistake is one line, without anything that steers a terminal.
pub fn config(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    let told = |error: String| assert!(!error.contains('\n') && !error.is_empty(), "{error:?}");
    let file = Layer::file("m.toml", &text).map_err(|error| told(error.to_string()));
    let words = config::parse_mount_options(text.lines()).map_err(|error| told(error.to_string()));
    let around = Surroundings {
        variable: &|_| None,
        uid: 1,
        gid: 1,
        user: &|_| None,
        group: &|_| None,
        account: &|_| None,
        directory: Path::new("/"),
    };
    let environment =
        Layer::environment(&|name| text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('=').map(str::to_owned)));
    let layers =
        [file.ok(), words.ok().map(|words| words.layer), Some(environment), Some(Layer::new(&Origin::Flag, [("cache-dir", "/c")]))];
    let layers = Layers(layers.into_iter().flatten().collect());
    let url = text.lines().next().filter(|line| line.contains("://")).unwrap_or("s3://bucket/prefix");
    if let Ok(config) = config::resolve(url, Path::new("/m"), &layers, VfsFlags::default(), &around) {
        assert!(config.settings.prefix.is_empty() || config.settings.prefix.ends_with('/'));
        assert!(!config.settings.prefix.split('/').any(|part| part == ".."));
    }
}

/// A set of spans is a set of bytes.
pub fn ranges(input: &[u8]) {
    let (mut spans, mut bytes) = (SpanSet::default(), BTreeSet::new());
    for step in input.chunks_exact(3) {
        let (start, end) = (u64::from(step[1]), u64::from(step[1]) + u64::from(step[2] & 63));
        match step[0] % 5 {
            0 | 1 => {
                spans.insert(start..end);
                bytes.extend(start..end);
            }
            2 => {
                spans.remove(start..end);
                bytes.retain(|byte| !(start..end).contains(byte));
            }
            3 => {
                spans.cut(start);
                bytes.retain(|byte| *byte < start);
            }
            _ => {
                let missing: BTreeSet<u64> = spans.missing(start..end).into_iter().flatten().collect();
                assert_eq!(missing, (start..end).filter(|byte| !bytes.contains(byte)).collect());
            }
        }
        assert_eq!(spans.bytes(), bytes.len() as u64);
        assert_eq!(spans.contains(&(start..end)), (start..end).all(|byte| bytes.contains(&byte)));
    }
    assert_eq!(spans.iter().flatten().collect::<BTreeSet<_>>(), bytes);
    let all: Vec<_> = spans.iter().collect();
    assert!(all.windows(2).all(|pair| pair[0].end < pair[1].start), "{all:?}");
}

/// What is wanted of a key is read as it was written, or not at all.
pub fn rows(input: &[u8]) {
    if let Ok(desired) = serde_json::from_slice::<Desired>(input) {
        let text = serde_json::to_string(&desired).unwrap();
        assert_eq!(serde_json::from_str::<Desired>(&text).unwrap(), desired);
    }
}

/// A journal's files, as a daemon that ended in good order left them.
fn whole_journal() -> &'static [(String, Vec<u8>)] {
    static FILES: OnceLock<Vec<(String, Vec<u8>)>> = OnceLock::new();
    FILES.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let journal = Journal::open(folder.path(), "fuzz").unwrap();
        let desired = |number: usize| Desired {
            content: Content::Inline(vec![b'x'; number]),
            headers: Some(ObjectHeaders::default().into()),
            condition: Condition::Any,
            was_there: false,
            since: SystemTime::UNIX_EPOCH,
        };
        let changes: Vec<Change> = (0..20).map(|number| Change::SetDesired(Key::new(format!("f{number}")), desired(number))).collect();
        journal.apply(&changes).unwrap();
        drop(journal);
        let files = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_file());
        files.map(|path| (path.file_name().unwrap().to_str().unwrap().to_owned(), std::fs::read(&path).unwrap())).collect()
    })
}

/// Harmed anywhere, a journal is refused or read; what can be saved of it is saved.
pub fn journal(input: &[u8]) {
    let folder = tempfile::tempdir().unwrap();
    for (number, (name, bytes)) in whole_journal().iter().enumerate() {
        let mut bytes = bytes.clone();
        for harm in input.chunks_exact(4).filter(|harm| usize::from(harm[0]) % whole_journal().len() == number) {
            if bytes.is_empty() {
                continue;
            }
            let at = (usize::from(harm[1]) << 8 | usize::from(harm[2])) % bytes.len();
            match harm[3] {
                0 => bytes.truncate(at),
                value => bytes[at] ^= value,
            }
        }
        std::fs::write(folder.path().join(name), bytes).unwrap();
    }
    let _ = salvage(folder.path());
    let _ = Journal::open(folder.path(), "fuzz");
}

/// Of compressed bytes come as many as were announced, or none.
pub fn gzip(input: &[u8]) {
    let Some((size, rest)) = input.split_first_chunk::<2>() else { return };
    let size = u64::from(u16::from_le_bytes(*size));
    if let Ok(bytes) = compressed::inflate(rest, size) {
        assert_eq!(bytes.len() as u64, size);
    }
    if let Some(stored) = compressed::compress(rest) {
        assert_eq!(compressed::inflate(&stored, rest.len() as u64).unwrap(), rest);
    }
}
