//! A reference model: random programs on the mount and on a plain tree in memory must agree at every step, whatever goes
//! up, expires or restarts in between; and at the end the bucket must hold the tree.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use mediafs::error::Result;
use mediafs::fs::{RenameFlags, SetAttr};
use mediafs::store::fault::{Fault, Rule};
use parking_lot::Mutex;
use proptest::prelude::*;
use tokio::task::JoinHandle;

use crate::world::{Bucket, Options, World};

#[derive(Clone, Debug)]
enum Step {
    Save(Path, u8, u16),
    WriteAt(Path, u16, u8),
    Append(Path, u8),
    Truncate(Path, u16),
    Mkdir(Path),
    Unlink(Path),
    Rmdir(Path),
    Rename(Path, Path),
    Exchange(Path, Path),
    Chmod(Path, bool),
    /// Time passes: uploads happen, caches expire.
    Wait(u16),
    /// All is in the bucket.
    Settle,
    /// The daemon is killed and started again on the same cache.
    Restart,
    /// The same after so many uploads, copies and removals, before word of the last comes: what has to ask the bucket is
    /// begun there, and goes on after it.
    Meanwhile(u8, Box<Step>),
}

/// At most three levels of three names each, so that steps meet.
type Path = (u8, u8, u8);

fn text(path: &Path) -> String {
    let names = ["a", "b.jpg", "c"];
    let (one, two, three) = *path;
    let mut parts = vec![names[one as usize]];
    parts.extend([two, three].into_iter().take_while(|part| *part < 3).map(|part| names[part as usize]));
    parts.join("/")
}

#[derive(Clone, Debug, PartialEq)]
enum Node {
    File(Vec<u8>, u32),
    Directory,
}

type Tree = BTreeMap<String, Node>;

fn path() -> impl Strategy<Value = Path> {
    (0..3u8, 0..5u8, 0..5u8)
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => plain_step(),
        1 => (0..4u8, plain_step()).prop_map(|(after, step)| Step::Meanwhile(after, Box::new(step))),
    ]
}

fn plain_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (path(), any::<u8>(), 0..5000u16).prop_map(|(p, b, n)| Step::Save(p, b, n)),
        2 => (path(), 0..6000u16, any::<u8>()).prop_map(|(p, at, b)| Step::WriteAt(p, at, b)),
        1 => (path(), any::<u8>()).prop_map(|(p, b)| Step::Append(p, b)),
        1 => (path(), 0..6000u16).prop_map(|(p, n)| Step::Truncate(p, n)),
        3 => path().prop_map(Step::Mkdir),
        2 => path().prop_map(Step::Unlink),
        2 => path().prop_map(Step::Rmdir),
        4 => (path(), path()).prop_map(|(p, q)| Step::Rename(p, q)),
        1 => (path(), path()).prop_map(|(p, q)| Step::Exchange(p, q)),
        1 => (path(), any::<bool>()).prop_map(|(p, b)| Step::Chmod(p, b)),
        2 => (0..15_000u16).prop_map(Step::Wait),
        1 => Just(Step::Settle),
        1 => Just(Step::Restart),
    ]
}

fn parent_is_directory(tree: &Tree, path: &str) -> bool {
    path.rsplit_once('/').is_none_or(|(parent, _)| tree.get(parent) == Some(&Node::Directory))
}

fn is_empty(tree: &Tree, path: &str) -> bool {
    let below = format!("{path}/");
    !tree.range(below.clone()..).next().is_some_and(|(other, _)| other.starts_with(&below))
}

fn take_below(tree: &mut Tree, path: &str) -> Vec<(String, Node)> {
    let below = format!("{path}/");
    let keys: Vec<String> = tree.keys().filter(|key| *key == path || key.starts_with(&below)).cloned().collect();
    keys.into_iter().map(|key| (key[path.len()..].to_owned(), tree.remove(&key).unwrap())).collect()
}

/// Whether the model's tree allows a step, and what it makes of it. None: an error is expected, and no change.
fn expect(tree: &mut Tree, step: &Step) -> Option<()> {
    match step {
        Step::Save(path, byte, size) => {
            let path = text(path);
            let mode = match tree.get(&path) {
                Some(Node::Directory) => return None,
                Some(Node::File(_, mode)) => *mode,
                None => 0o644,
            };
            parent_is_directory(tree, &path).then_some(())?;
            tree.insert(path, Node::File(vec![*byte; *size as usize], mode));
        }
        Step::WriteAt(path, at, byte) => change(tree, path, |bytes| {
            let end = *at as usize + 100;
            bytes.resize(bytes.len().max(end), 0);
            bytes[*at as usize..end].fill(*byte);
        })?,
        Step::Append(path, byte) => change(tree, path, |bytes| bytes.extend([*byte; 10]))?,
        Step::Truncate(path, size) => change(tree, path, |bytes| bytes.resize(*size as usize, 0))?,
        Step::Mkdir(path) => {
            let path = text(path);
            (!tree.contains_key(&path) && parent_is_directory(tree, &path)).then_some(())?;
            tree.insert(path, Node::Directory);
        }
        Step::Unlink(path) => {
            let path = text(path);
            matches!(tree.get(&path), Some(Node::File(..))).then_some(())?;
            tree.remove(&path);
        }
        Step::Rmdir(path) => {
            let path = text(path);
            (tree.get(&path) == Some(&Node::Directory) && is_empty(tree, &path)).then_some(())?;
            tree.remove(&path);
        }
        Step::Rename(from, to) => {
            let (from, to) = (text(from), text(to));
            let moving = tree.get(&from)?.clone();
            parent_is_directory(tree, &to).then_some(())?;
            if from == to {
                return Some(());
            }
            let fits = match (&moving, tree.get(&to)) {
                (_, None) => true,
                (Node::Directory, Some(Node::Directory)) => is_empty(tree, &to),
                (Node::File(..), Some(Node::File(..))) => true,
                _ => false,
            };
            (fits && !to.starts_with(&format!("{from}/"))).then_some(())?;
            tree.remove(&to);
            let moved = take_below(tree, &from);
            tree.extend(moved.into_iter().map(|(rest, node)| (format!("{to}{rest}"), node)));
        }
        Step::Exchange(one, two) => {
            let (one, two) = (text(one), text(two));
            (tree.contains_key(&one) && tree.contains_key(&two)).then_some(())?;
            if one == two {
                return Some(());
            }
            (!one.starts_with(&format!("{two}/")) && !two.starts_with(&format!("{one}/"))).then_some(())?;
            let (first, second) = (take_below(tree, &one), take_below(tree, &two));
            tree.extend(first.into_iter().map(|(rest, node)| (format!("{two}{rest}"), node)));
            tree.extend(second.into_iter().map(|(rest, node)| (format!("{one}{rest}"), node)));
        }
        Step::Chmod(path, private) => match tree.get_mut(&text(path))? {
            Node::File(_, mode) => *mode = if *private { 0o600 } else { 0o644 },
            Node::Directory => return None,
        },
        Step::Wait(_) | Step::Settle | Step::Restart => {}
        Step::Meanwhile(_, step) => expect(tree, step)?,
    }
    Some(())
}

fn change(tree: &mut Tree, path: &Path, change: impl Fn(&mut Vec<u8>)) -> Option<()> {
    match tree.get_mut(&text(path))? {
        Node::File(bytes, _) => change(bytes),
        Node::Directory => return None,
    }
    Some(())
}

async fn perform(mount: &World, step: &Step) -> Result<()> {
    match step {
        Step::Save(path, byte, size) => mount.save(&text(path), &vec![*byte; *size as usize]).await,
        Step::WriteAt(path, at, byte) => {
            let handle = mount.open(&text(path), libc::O_RDWR).await?;
            mount.write(handle, u64::from(*at), &[*byte; 100]).await?;
            mount.close(handle).await
        }
        Step::Append(path, byte) => {
            let size = mount.stat(&text(path)).await?.size;
            let handle = mount.open(&text(path), libc::O_WRONLY | libc::O_APPEND).await?;
            mount.write(handle, size, &[*byte; 10]).await?;
            mount.close(handle).await
        }
        Step::Truncate(path, size) => {
            let attr = mount.stat(&text(path)).await?;
            mount.fs.setattr(attr.ino, SetAttr { size: Some(u64::from(*size)), ..SetAttr::default() }).await.map(drop)
        }
        Step::Mkdir(path) => mount.mkdir(&text(path)).await,
        Step::Unlink(path) => mount.unlink(&text(path)).await,
        Step::Rmdir(path) => mount.rmdir(&text(path)).await,
        Step::Rename(from, to) => mount.rename(&text(from), &text(to)).await,
        Step::Exchange(one, two) => mount.rename_with(&text(one), &text(two), RenameFlags { no_replace: false, exchange: true }).await,
        Step::Chmod(path, private) => {
            let attr = mount.stat(&text(path)).await?;
            if attr.kind == mediafs::fs::Kind::Directory {
                return Err(mediafs::error::Error::Invalid);
            }
            mount.chmod(&text(path), if *private { 0o600 } else { 0o644 }).await
        }
        Step::Wait(millis) => {
            tokio::time::sleep(Duration::from_millis(u64::from(*millis))).await;
            Ok(())
        }
        Step::Settle => {
            mount.settle().await;
            Ok(())
        }
        Step::Restart | Step::Meanwhile(..) => Ok(()),
    }
}

/// A step that waits for its moment: then it is done, or goes on as a task.
#[derive(Default)]
struct Armed {
    after: u8,
    step: Option<BoxFuture<'static, Result<()>>>,
    done: Option<Result<()>>,
    goes_on: Option<JoinHandle<Result<()>>>,
}

type Trigger = Arc<Mutex<Armed>>;

fn options(trigger: &Trigger) -> Options {
    let trigger = Arc::clone(trigger);
    let meanwhile = Arc::new(move |_: &mediafs::fs::Fs, _: &mediafs::types::Key| {
        let mut armed = trigger.lock();
        let due = armed.after == 0;
        armed.after = armed.after.saturating_sub(1);
        let Some(mut step) = armed.step.take_if(|_| due) else { return };
        match (&mut step).now_or_never() {
            Some(done) => armed.done = Some(done),
            None => armed.goes_on = Some(tokio::spawn(step)),
        }
    });
    Options { meanwhile: Some(meanwhile), ..Options::default() }
}

async fn perform_meanwhile(mount: &Arc<World>, trigger: &Trigger, after: u8, step: &Step) -> Result<()> {
    let (then, step) = (Arc::clone(mount), step.clone());
    *trigger.lock() = Armed { after, step: Some(async move { perform(&then, &step).await }.boxed()), ..Armed::default() };
    mount.settle().await;
    let armed = std::mem::take(&mut *trigger.lock());
    match armed {
        Armed { done: Some(done), .. } => return done,
        Armed { goes_on: Some(task), .. } => task,
        Armed { step: Some(step), .. } => tokio::spawn(step),
        Armed { .. } => unreachable!("it is in one of them"),
    }
    .await
    .unwrap()
}

/// The tree as the mount shows it.
async fn seen(mount: &World) -> Tree {
    let mut tree = Tree::new();
    let mut stack = vec![String::new()];
    while let Some(directory) = stack.pop() {
        for name in mount.names(&directory).await.unwrap() {
            let path = if directory.is_empty() { name } else { format!("{directory}/{name}") };
            let attr = mount.stat(&path).await.unwrap_or_else(|error| panic!("{path} is listed: {error}"));
            if attr.kind == mediafs::fs::Kind::Directory {
                tree.insert(path.clone(), Node::Directory);
                stack.push(path);
            } else {
                let bytes = mount.read(&path).await.unwrap_or_else(|error| panic!("{path}: {error}"));
                assert_eq!(bytes.len() as u64, attr.size, "{path}");
                tree.insert(path, Node::File(bytes, attr.mode));
            }
        }
    }
    tree
}

fn files(tree: &Tree) -> Vec<(String, Vec<u8>)> {
    tree.iter()
        .filter_map(|(path, node)| if let Node::File(bytes, _) = node { Some((path.clone(), bytes.clone())) } else { None })
        .collect()
}

async fn run(steps: &[Step]) {
    let (bucket, trigger) = (Bucket::new(), Trigger::default());
    let mut mount = Arc::new(bucket.mount_with(options(&trigger)));
    let mut tree = Tree::new();
    for (at, step) in steps.iter().enumerate() {
        let expected = expect(&mut tree, step);
        if let Step::Restart = step {
            let folder = Arc::clone(&mount.folder);
            mount.writer.stop();
            drop(mount);
            mount = Arc::new(bucket.mount_in(folder, options(&trigger)));
        }
        let done = match step {
            Step::Meanwhile(after, step) => {
                // No question is answered within the instant.
                bucket.faults.add(Rule::any().fault(Fault::Latency(Duration::from_millis(1))));
                let done = perform_meanwhile(&mount, &trigger, *after, step).await;
                bucket.faults.clear();
                done
            }
            step => perform(&mount, step).await,
        };
        assert_eq!(done.is_ok(), expected.is_some(), "step {at} {step:?}: {done:?}");
        assert_eq!(seen(&mount).await, tree, "after step {at} {step:?}");
    }
    mount.settle().await;
    assert_eq!(seen(&mount).await, tree, "after all went up");
    let held: Vec<(String, Vec<u8>)> =
        bucket.keys().into_iter().filter(|key| !key.ends_with('/')).map(|key| (key.clone(), bucket.get(&key).unwrap())).collect();
    assert_eq!(held, files(&tree), "what the bucket holds");
    assert_eq!(seen(&bucket.mount()).await, tree, "from an empty cache");
    assert_eq!(mount.writer.backlog().conflicts, 0);
}

/// `scripts/soak --fuzz` plays more.
fn cases() -> u32 {
    std::env::var("MEDIAFS_MODEL_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(96)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), max_shrink_iters: 400, ..ProptestConfig::default() })]

    #[test]
    fn any_program_sees_a_plain_tree(steps in proptest::collection::vec(step(), 1..40)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        runtime.block_on(run(&steps));
    }
}
