//! What programs may count on by POSIX and by Linux' own habits, where a store alone would behave otherwise.

use mediafs::error::Error;

use crate::world::{Bucket, requests};

/// A path of four directories that leaves `left` bytes of a key's 1,024 for a name.
async fn deep(mount: &crate::world::World, left: usize) -> String {
    let mut path = String::new();
    let mut rest = 1024 - left;
    for depth in 0..4 {
        let length = rest.div_ceil(4 - depth);
        rest -= length;
        path += &"d".repeat(length - 1);
        mount.mkdir(&path).await.unwrap();
        path.push('/');
    }
    path
}

#[tokio::test(start_paused = true)]
async fn a_name_that_would_make_too_long_a_key_is_refused_without_asking() {
    let bucket = Bucket::new();
    let mount = bucket.mount();
    let path = deep(&mount, 4).await;
    mount.settle().await;
    let before = requests(&mount);
    let long = format!("{path}12345");
    assert!(matches!(mount.stat(&long).await, Err(Error::NameTooLong)), "what no key can hold is not asked for");
    assert!(matches!(mount.save(&long, b"x").await, Err(Error::NameTooLong)));
    assert!(matches!(mount.mkdir(&long).await, Err(Error::NameTooLong)));
    assert!(matches!(mount.unlink(&long).await, Err(Error::NameTooLong)));
    assert_eq!(requests(&mount), before);
    let full = format!("{path}1234");
    assert!(matches!(mount.mkdir(&full).await, Err(Error::NameTooLong)), "its marker would end in one slash more");
    mount.save(&full, b"fills its key").await.unwrap();
    mount.settle().await;
    assert_eq!(mount.read(&full).await.unwrap(), b"fills its key");
    assert_eq!(bucket.mount().read(&full).await.unwrap(), b"fills its key");
    assert!(matches!(mount.rename(&full, &long).await, Err(Error::NameTooLong)));
}
