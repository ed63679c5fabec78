//! The house rules that a compiler doesn't check: directions between modules, sizes, who may name which crate, headers,
//! and that the README's options are the program's. Each failure says the file, the line and the rule.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// From the top down: a module names only modules of lower layers, and itself. `emulator` stands aside, see below.
const LAYERS: &[&[&str]] = &[
    &["main"],
    &["cli"],
    &["config"],
    &["doctor", "recover"],
    &["daemon"],
    &["fuse"],
    &["fs"],
    &["namespace", "reader", "writer"],
    &["cache"],
    &["journal"],
    &["error"],
    &["store"],
    &["clock", "media", "metrics"],
    &["simulation"],
    &["types"],
];

/// The emulator is a program of its own inside the program: it shares words, not layers.
const EMULATOR_USES: &[&str] = &["types", "error", "clock", "emulator"];
const EMULATOR_USED_BY: &[&str] = &["cli", "emulator"];

/// A word of code, and the only places (path prefixes below `src/`) that may say it, with the reason.
const OWNED: &[(&str, &[&str], &str)] = &[
    ("aws_", &["store/s3"], "the SDK stands behind the store's trait once"),
    ("fuser::", &["fuse/", "fuse.rs"], "only the FUSE edge knows fuser"),
    ("libc::E", &["fuse/", "fuse.rs", "error.rs", "cache/"], "an errno is chosen at the edge; the cache reads its disk's"),
    ("rusqlite", &["journal/", "journal.rs", "emulator/"], "the journal owns the database, the emulator keeps its own"),
    ("s3s::", &["emulator/", "emulator.rs"], "only the emulator speaks the server's side"),
    ("SystemTime::now", &["clock.rs"], "wall time comes from one place"),
    ("std::time::Instant", &["clock.rs"], "intervals use tokio's clock, which tests can pause"),
    ("thread::sleep", &["clock.rs"], "wait for a condition, not for a time"),
    ("dbg!", &[], "left over"),
    ("todo!", &[], "unfinished"),
    ("unimplemented!", &[], "unfinished"),
    ("allow(dead_code)", &[], "delete it instead"),
    ("allow(unused", &[], "delete it instead"),
];

const FILE_LINES: usize = 500;
const FUNCTION_LINES: usize = 70;

struct Source {
    /// Below `src/`.
    path: String,
    text: String,
    /// The same with comments, strings and characters blanked, line for line.
    code: String,
    /// `code` without `#[cfg(test)]` items.
    product: String,
}

impl Source {
    /// The module right below the crate's root that this file belongs to.
    fn module(&self) -> &str {
        self.path.split('/').next().unwrap_or_default().trim_end_matches(".rs")
    }

    fn is_test(&self) -> bool {
        self.path.ends_with("tests.rs") || self.path.contains("/tests/")
    }
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found.sort();
    found
}

fn sources() -> Vec<Source> {
    let src = root().join("src");
    let read = |path: PathBuf| {
        let text = std::fs::read_to_string(&path).unwrap();
        let code = blank(&text);
        let product = without_tests(&code);
        Source { path: path.strip_prefix(&src).unwrap().to_str().unwrap().to_owned(), text, code, product }
    };
    rust_files(&src).into_iter().map(read).collect()
}

/// Replaces comments and the insides of literals by spaces; newlines stay, so that line numbers hold.
fn blank(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let end = literal_end(bytes, at);
        for byte in &mut out[at..end] {
            if *byte != b'\n' {
                *byte = b' ';
            }
        }
        at = end.max(at + 1);
    }
    String::from_utf8(out).unwrap()
}

/// Where the comment or literal that begins at `at` ends; `at` itself where none begins there.
fn literal_end(bytes: &[u8], at: usize) -> usize {
    let rest = &bytes[at..];
    let before = if at == 0 { b' ' } else { bytes[at - 1] };
    let in_word = before.is_ascii_alphanumeric() || before == b'_';
    if rest.starts_with(b"//") {
        return at + rest.iter().position(|&byte| byte == b'\n').unwrap_or(rest.len());
    }
    if rest.starts_with(b"/*") {
        return at + rest.windows(2).position(|pair| pair == b"*/").map_or(rest.len(), |found| found + 2);
    }
    if rest[0] == b'"' {
        return string_end(bytes, at + 1);
    }
    if rest[0] == b'r' && (!in_word || before == b'b') {
        let hashes = rest[1..].iter().take_while(|&&byte| byte == b'#').count();
        if rest.get(1 + hashes) == Some(&b'"') {
            let close = [&b"\""[..], &b"#".repeat(hashes)].concat();
            let body = &rest[2 + hashes..];
            let found = body.windows(close.len()).position(|window| window == close).unwrap_or(body.len() - close.len());
            return at + 2 + hashes + found + close.len();
        }
    }
    if rest[0] == b'\'' {
        return character_end(bytes, at);
    }
    at
}

fn string_end(bytes: &[u8], mut at: usize) -> usize {
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => at += 2,
            b'"' => return at + 1,
            _ => at += 1,
        }
    }
    bytes.len()
}

/// A character literal's end, or `at` for a lifetime.
fn character_end(bytes: &[u8], at: usize) -> usize {
    let close = |from: usize| bytes[from..].iter().take(12).position(|&byte| byte == b'\'').map(|found| from + found + 1);
    match bytes.get(at + 1) {
        Some(b'\\') => close(at + 3).unwrap_or(at),
        Some(&first) if !first.is_ascii() => close(at + 2).unwrap_or(at),
        _ if bytes.get(at + 2) == Some(&b'\'') => at + 3,
        _ => at,
    }
}

/// Blanks every item under `#[cfg(test)]`.
fn without_tests(code: &str) -> String {
    let mut out = code.to_owned();
    while let Some(start) = out.find("#[cfg(test)]") {
        let end = item_end(&out, start);
        let hidden: String = out[start..end].chars().map(|c| if c == '\n' { '\n' } else { ' ' }).collect();
        out.replace_range(start..end, &hidden);
    }
    out
}

/// The end of the item that begins at `start`: its closing brace, or the semicolon before any brace.
fn item_end(code: &str, start: usize) -> usize {
    let mut depth = 0;
    for (at, c) in code[start..].char_indices() {
        match c {
            '{' => depth += 1,
            '}' => {
                depth -= 1;
                if depth == 0 {
                    return start + at + 1;
                }
            }
            ';' if depth == 0 => return start + at + 1,
            _ => {}
        }
    }
    code.len()
}

fn line_of(code: &str, at: usize) -> usize {
    code[..at].matches('\n').count() + 1
}

/// The modules that `code` names as `crate::X` or `mediafs::X`, also inside `use crate::{a, b::c}`, with their lines.
fn named_modules(code: &str) -> Vec<(String, usize)> {
    let mut found = Vec::new();
    for root in ["crate::", "mediafs::"] {
        for (at, _) in code.match_indices(root) {
            if code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':' || c == '$') {
                continue;
            }
            let rest = &code[at + root.len()..];
            for name in first_names(rest) {
                found.push((name, line_of(code, at)));
            }
        }
    }
    found
}

/// The first identifiers of a path's rest: one, or those at depth one of a `{...}` group.
fn first_names(rest: &str) -> Vec<String> {
    let word = |text: &str| text.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    let Some(group) = rest.strip_prefix('{') else { return vec![word(rest)] };
    let (mut names, mut depth, mut begin) = (Vec::new(), 1, 0);
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        if depth == 0 || (depth == 1 && c == ',') {
            names.push(word(&group[begin..at]));
            begin = at + 1;
        }
        if depth == 0 {
            break;
        }
    }
    names.retain(|name| !name.is_empty());
    names
}

fn layer(module: &str) -> Option<usize> {
    LAYERS.iter().position(|layer| layer.contains(&module))
}

/// Why `from` may not name `to`; None where it may.
fn forbidden(from: &str, to: &str) -> Option<String> {
    if from == to || from == "lib" || to == "self" {
        return None;
    }
    if from == "emulator" {
        return (!EMULATOR_USES.contains(&to)).then(|| format!("the emulator uses only {EMULATOR_USES:?}"));
    }
    if to == "emulator" {
        return (!EMULATOR_USED_BY.contains(&from)).then(|| "only the command line starts the emulator".to_owned());
    }
    match (layer(from), layer(to)) {
        (Some(above), Some(below)) if above < below => None,
        (Some(_), Some(_)) => Some(format!("{from} is not above {to}")),
        (None, _) => Some(format!("{from} has no layer: give it one in tests/tidy.rs")),
        (_, None) => None, // a type or function re-exported at the root
    }
}

/// Every function with a body: its name, its first line, its lines.
fn functions(code: &str) -> Vec<(String, usize, usize)> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices("fn ") {
        let name: String = code[at + 3..].chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
        if name.is_empty() || code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_') {
            continue;
        }
        let end = item_end(code, at);
        found.push((name, line_of(code, at), code[at..end].matches('\n').count() + 1));
    }
    found
}

fn report(rule: &str, broken: String) {
    assert!(broken.is_empty(), "{rule}:\n{broken}");
}

#[test]
fn modules_name_only_what_is_below_them() {
    let mut broken = String::new();
    for source in sources().iter().filter(|source| !source.is_test()) {
        for (to, line) in named_modules(&source.product) {
            if let Some(reason) = forbidden(source.module(), &to) {
                let _ = writeln!(broken, "  src/{}:{line} names crate::{to}: {reason}", source.path);
            }
        }
    }
    report("modules look downwards only", broken);
}

#[test]
fn crates_and_clocks_have_one_owner() {
    let mut broken = String::new();
    for source in sources().iter().filter(|source| !source.is_test()) {
        for (word, owners, reason) in OWNED {
            let owned = owners.iter().any(|owner| source.path.starts_with(owner));
            for (at, _) in source.product.match_indices(word).filter(|_| !owned) {
                let whole = !source.product[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_');
                if whole {
                    let _ = writeln!(broken, "  src/{}:{} says {word}: {reason}", source.path, line_of(&source.product, at));
                }
            }
        }
    }
    report("each crate, clock and errno has one owner", broken);
}

#[test]
fn files_and_functions_stay_small() {
    let mut broken = String::new();
    for source in sources() {
        let lines = source.text.lines().count();
        if lines > FILE_LINES {
            let _ = writeln!(broken, "  src/{}: {lines} lines, {FILE_LINES} at most", source.path);
        }
        for (name, line, length) in functions(&source.code) {
            if length > FUNCTION_LINES {
                let _ = writeln!(broken, "  src/{}:{line} fn {name}: {length} lines, {FUNCTION_LINES} at most", source.path);
            }
        }
    }
    for path in rust_files(&root().join("tests")) {
        let lines = std::fs::read_to_string(&path).unwrap().lines().count();
        if lines > FILE_LINES {
            let _ = writeln!(broken, "  {}: {lines} lines, {FILE_LINES} at most", path.display());
        }
    }
    report("files and functions stay small", broken);
}

#[test]
fn unsafe_is_for_system_calls_and_says_why() {
    let mut broken = String::new();
    for source in sources() {
        let (text, code): (Vec<&str>, Vec<&str>) = (source.text.lines().collect(), source.code.lines().collect());
        for (number, line) in code.iter().enumerate().filter(|(_, line)| line.contains("unsafe ")) {
            let reason =
                text[..number].iter().rev().take_while(|line| line.trim_start().starts_with("//")).any(|line| line.contains("// SAFETY: "));
            let of_a_call = source.code.contains("libc::");
            if !reason || !of_a_call || line.contains("unsafe fn") || line.contains("unsafe impl Send") {
                let _ = writeln!(broken, "  src/{}:{} {}", source.path, number + 1, line.trim());
            }
        }
    }
    report("unsafe stands in the files of system calls, below a SAFETY comment", broken);
}

#[test]
fn every_dependency_has_its_purpose() {
    let read = |name: &str| std::fs::read_to_string(root().join(name)).unwrap();
    let (manifest, listed) = (read("Cargo.toml"), read("DEPENDENCIES.md"));
    let tables = manifest.split("\n[").filter(|table| table.starts_with("dependencies]") || table.starts_with("dev-dependencies]"));
    let crates: BTreeSet<&str> = tables.flat_map(str::lines).filter_map(|line| line.split_once(" = ")).map(|(name, _)| name).collect();
    let named: BTreeSet<&str> = listed.split('`').skip(1).step_by(2).collect();
    let missing: String = crates.iter().filter(|name| !named.contains(*name)).map(|name| format!("  {name}\n")).collect();
    report("DEPENDENCIES.md says what each crate is for", missing);
    let rows: BTreeSet<&str> = listed
        .lines()
        .filter(|line| line.starts_with("| `"))
        .flat_map(|line| line.split(" | ").next().unwrap().split('`').skip(1).step_by(2))
        .collect();
    report(
        "DEPENDENCIES.md names only what there is",
        rows.iter().filter(|name| !crates.contains(*name)).map(|name| format!("  {name}\n")).collect(),
    );
}

#[test]
fn every_file_says_what_it_is() {
    let silent: String =
        sources().iter().filter(|s| !s.is_test() && !s.text.starts_with("//!")).map(|s| format!("  src/{}\n", s.path)).collect();
    report("a file starts with a //! header", silent);
}

#[test]
fn the_maps_show_every_module() {
    let read = |name: &str| std::fs::read_to_string(root().join(name)).unwrap();
    let (lib, architecture) = (read("src/lib.rs"), read("ARCHITECTURE.md"));
    let mut broken = String::new();
    for module in lib.lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';')) {
        if !lib.lines().any(|line| line.starts_with(&format!("//! {module} "))) {
            let _ = writeln!(broken, "  src/lib.rs: the header has no line for {module}");
        }
        if !architecture.contains(&format!("`{module}/`")) && !architecture.contains(&format!("`{module}.rs`")) {
            let _ = writeln!(broken, "  ARCHITECTURE.md: the map has no line for {module}");
        }
    }
    report("each module is on the maps", broken);
}

#[test]
fn nothing_is_left_for_later() {
    let mut broken = String::new();
    for source in sources() {
        for (number, line) in source.text.lines().enumerate() {
            if ["TODO", "FIXME", "HACK", "SKELETON"].iter().any(|mark| line.contains(mark)) {
                let _ = writeln!(broken, "  src/{}:{} {}", source.path, number + 1, line.trim());
            }
        }
    }
    report("nothing is left for later", broken);
}

/// One option, and all that the README's row or the program's help says of it.
struct Shown {
    flag: String,
    text: String,
}

/// Rows of the README's table whose first cell is a flag.
fn options_in_readme() -> Vec<Shown> {
    let text = std::fs::read_to_string(root().join("README.md")).unwrap();
    let row = |line: &str| {
        let cell = line.strip_prefix("| `--")?;
        let flag = cell.split(['`', ' ']).next()?.to_owned();
        Some(Shown { flag, text: line.to_owned() })
    };
    text.lines().filter_map(row).collect()
}

/// Flags of `mediafs mount --help`, each with its paragraph.
fn options_in_help() -> Vec<Shown> {
    let output = Command::new(env!("CARGO_BIN_EXE_mediafs")).args(["mount", "--help"]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let mut found: Vec<Shown> = Vec::new();
    for line in text.lines() {
        let word = line.trim_start();
        let long = word.split([' ', ',']).find(|part| part.starts_with("--")).filter(|_| word.starts_with('-'));
        match long {
            Some(part) => {
                let flag: String = part[2..].chars().take_while(|c| c.is_alphanumeric() || *c == '-').collect();
                found.push(Shown { flag, text: line.to_owned() });
            }
            None => {
                if let Some(last) = found.last_mut() {
                    last.text.push(' ');
                    last.text.push_str(line.trim());
                }
            }
        }
    }
    found.retain(|shown| shown.flag != "help" && shown.flag != "version");
    found
}

/// What stands between `[NAME: ` and the bracket's end, if the help says so.
fn bracketed<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let start = text.find(&format!("[{name}: "))? + name.len() + 3;
    text[start..].split([']', '=']).next()
}

#[test]
fn the_readme_lists_the_options_that_there_are() {
    let (readme, help) = (options_in_readme(), options_in_help());
    let names = |shown: &[Shown]| shown.iter().map(|one| one.flag.clone()).collect::<BTreeSet<_>>();
    assert_eq!(names(&readme), names(&help), "left: the README's table of options, right: `mediafs mount --help`");
    let mut broken = String::new();
    for option in &help {
        let row = readme.iter().find(|row| row.flag == option.flag).unwrap();
        for name in ["env", "default"] {
            if let Some(value) = bracketed(&option.text, name).filter(|value| !row.text.contains(&format!("`{value}`"))) {
                let _ = writeln!(broken, "  --{}: its {name} is {value}, which the README's row doesn't show", option.flag);
            }
        }
    }
    report("the README's table of options is the program's", broken);
}

#[test]
fn the_reader_of_code_reads_code() {
    let text =
        "let a = \"fn x {\"; // fn y {\nlet b = r#\"}\"#; let c = '{'; fn f<'a>() { /* { */ }\n#[cfg(test)]\nmod tests { fn z() {} }\n";
    let code = blank(text);
    assert_eq!(functions(&code), [("f".to_owned(), 2, 1), ("z".to_owned(), 4, 1)]);
    assert_eq!(functions(&without_tests(&code)), [("f".to_owned(), 2, 1)]);
    assert_eq!(first_names("{fs::{a, b}, types}; "), ["fs", "types"]);
    assert_eq!(first_names("store::Store"), ["store"]);
    assert_eq!(forbidden("fs", "writer"), None);
    assert!(forbidden("writer", "fs").is_some() && forbidden("reader", "writer").is_some() && forbidden("fs", "emulator").is_some());
}
