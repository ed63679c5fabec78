use proptest::prelude::*;

use super::*;

const DEFAULTS: Defaults = Defaults { uid: 1000, gid: 1000, file_mode: 0o644, dir_mode: 0o755 };

fn headers(metadata: &[(&str, &str)]) -> ObjectHeaders {
    ObjectHeaders { metadata: metadata.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect(), ..Default::default() }
}

fn at(seconds: i64, nanos: u32) -> SystemTime {
    let epoch = SystemTime::UNIX_EPOCH;
    let whole = Duration::from_secs(seconds.unsigned_abs());
    (if seconds < 0 { epoch - whole } else { epoch + whole }) + Duration::from_nanos(nanos.into())
}

#[test]
fn modes_of_s3fs_and_rclone_are_told_apart() {
    use FileType::*;
    let cases = [
        // s3fs
        ("33188", Some(File), Some(0o644)),
        ("33261", Some(File), Some(0o755)),
        ("32768", Some(File), Some(0)),
        ("16877", Some(Directory), Some(0o755)),
        ("17901", Some(Directory), Some(0o2755)),
        ("41471", Some(Symlink), Some(0o777)),
        // rclone, and C's octal
        ("100644", Some(File), Some(0o644)),
        ("0100600", Some(File), Some(0o600)),
        ("40755", Some(Directory), Some(0o755)),
        ("41777", Some(Directory), Some(0o1777)),
        ("42755", Some(Directory), Some(0o2755)),
        ("042770", Some(Directory), Some(0o2770)),
        ("120777", Some(Symlink), Some(0o777)),
        // bare permissions
        ("644", None, Some(0o644)),
        ("0755", None, Some(0o755)),
        ("493", None, Some(0o755)),
        ("0", None, Some(0)),
        // setuid, setgid and sticky on files; setuid on directories
        ("35309", Some(File), Some(0o755)),
        ("104755", Some(File), Some(0o755)),
        ("106644", Some(File), Some(0o644)),
        ("44755", Some(Directory), Some(0o755)),
        // devices, pipe, socket
        ("8612", None, None),
        ("020666", None, None),
        ("060660", None, None),
        ("010644", None, None),
        ("0140755", None, None),
        // nonsense
        ("", None, None),
        ("-33188", None, None),
        ("33188.0", None, None),
        ("0x81a4", None, None),
        ("rw-r--r--", None, None),
        ("99999", None, None),
        ("4294967295", None, None),
        ("18446744073709551616", None, None),
        ("00000000000100644", None, None),
    ];
    for (text, kind, mode) in cases {
        let posix = decode(&headers(&[(MODE, text)]));
        assert_eq!((posix.kind, posix.mode), (kind, mode), "{text:?}");
    }
}

#[test]
fn ids_and_times_of_strangers() {
    for (text, id) in [("0", Some(0)), ("33", Some(33)), ("4294967294", Some(u32::MAX - 1)), (" 7 ", Some(7))] {
        assert_eq!(decode(&headers(&[(UID, text), (GID, text)])), Posix { uid: id, gid: id, ..Default::default() }, "{text}");
    }
    for text in ["", "-1", "+1", "4294967295", "99999999999999999999", "1.0", "root", "1e3"] {
        assert_eq!(decode(&headers(&[(UID, text), (GID, text)])), Posix::default(), "{text}");
    }
    let times = [
        ("1700000000", at(1_700_000_000, 0)),
        ("1700000000.5", at(1_700_000_000, 500_000_000)),
        ("1354040105.123456789", at(1_354_040_105, 123_456_789)),
        ("1354040105.1234567899", at(1_354_040_105, 123_456_789)),
        ("0", at(0, 0)),
        ("-1.5", at(-2, 500_000_000)),
        ("253402300799", at(253_402_300_799, 0)),
    ];
    for (text, time) in times {
        assert_eq!(decode(&headers(&[(MTIME, text)])).mtime, Some(time), "{text}");
    }
    for text in ["", "-", ".", "1.", ".5", "--1", "1.-5", "1700000000000", "1e9", "nan", "2024-01-01", "99999999999999999999999"] {
        assert_eq!(decode(&headers(&[(MTIME, text)])).mtime, None, "{text}");
    }
}

#[test]
fn only_what_differs_is_written() {
    let mut posix = Posix { kind: Some(FileType::File), mode: Some(0o644), uid: Some(1000), gid: Some(1000), ..Default::default() };
    assert!(encode(&posix, &DEFAULTS).is_empty());
    posix.mtime = Some(at(1_700_000_000, 1));
    assert_eq!(encode(&posix, &DEFAULTS), headers(&[(MTIME, "1700000000.000000001")]).metadata);
    posix.mode = Some(0o600);
    posix.uid = Some(33);
    let written = [(MODE, "0100600"), (UID, "33"), (GID, "1000"), (MTIME, "1700000000.000000001")];
    assert_eq!(encode(&posix, &DEFAULTS), headers(&written).metadata);
    let directory = Posix { kind: Some(FileType::Directory), mode: Some(0o2755), gid: Some(33), ..Default::default() };
    assert_eq!(encode(&directory, &DEFAULTS), headers(&[(MODE, "042755"), (GID, "33")]).metadata);
}

/// s3fs reads the mode as `strtoll` of base 0 does, rclone every number as octal and the owner as the group where there is none.
#[test]
fn s3fs_and_rclone_read_what_is_written() {
    for (kind, bits) in [(FileType::File, FILE_BITS), (FileType::Directory, DIRECTORY_BITS)] {
        for mode in 0..=bits {
            let posix = Posix { kind: Some(kind), mode: Some(mode), uid: Some(33), gid: Some(1000), ..Default::default() };
            let written = encode(&posix, &Defaults { file_mode: 0o10000, dir_mode: 0o10000, ..DEFAULTS });
            assert!(written[MODE].starts_with('0'), "s3fs would take {} for a decimal", written[MODE]);
            assert_eq!(u32::from_str_radix(&written[MODE], 8).unwrap(), kind.type_bits() | mode);
            assert_eq!((&*written[UID], &*written[GID]), ("33", "1000"));
        }
    }
}

#[test]
fn a_symlink_says_so_and_where_to() {
    let link = Posix { kind: Some(FileType::Symlink), mode: Some(0o777), symlink: Some("../a b/ü%".into()), ..Default::default() };
    let written = encode(&link, &DEFAULTS);
    assert_eq!(written, headers(&[(MODE, "0120777"), (SYMLINK, "../a%20b/%C3%BC%25")]).metadata);
    assert_eq!(decode(&ObjectHeaders { metadata: written, ..Default::default() }), link);

    let long = Posix { symlink: Some("ü".repeat(1000)), ..link };
    assert_eq!(encode(&long, &DEFAULTS), headers(&[(MODE, "0120777")]).metadata);
}

#[test]
fn a_targets_metadata_alone_makes_no_file_a_symlink() {
    for hostile in ["", "%00", "a%00b", "%ff"] {
        assert_eq!(decode(&headers(&[(SYMLINK, hostile), (MODE, "41471")])).symlink, None, "{hostile}");
    }
    assert_eq!(decode(&headers(&[(SYMLINK, "x"), (MODE, "33188")])).symlink, None);
    assert_eq!(decode(&headers(&[(SYMLINK, "x")])).kind, Some(FileType::Symlink));
}

#[test]
fn a_directory_is_known_by_its_content_type() {
    let marker = ObjectHeaders { content_type: Some("application/x-directory; charset=UTF-8".into()), ..headers(&[(MODE, "3775")]) };
    let posix = decode(&marker);
    assert_eq!((posix.kind, posix.mode), (Some(FileType::Directory), Some(0o3775)));
}

#[test]
fn an_update_keeps_what_is_not_ours() {
    let mut object = headers(&[("owner", "ann"), (MODE, "33152"), (UID, "5"), (MTIME, "1"), ("ctime", "2"), (RCLONE_MD5, "x")]);
    object.content_type = Some("image/jpeg".into());
    update(&mut object, &Posix { mode: Some(0o644), mtime: Some(at(3, 0)), ..Default::default() }, &DEFAULTS);
    assert_eq!(object.metadata, headers(&[("owner", "ann"), ("ctime", "2"), (MTIME, "3.000000000"), (RCLONE_MD5, "x")]).metadata);
    forget_content(&mut object);
    assert!(!object.metadata.contains_key(RCLONE_MD5));
    assert_eq!(object.content_type.as_deref(), Some("image/jpeg"));
}

fn any_posix() -> impl Strategy<Value = Posix> {
    let kinds = prop_oneof![Just(FileType::File), Just(FileType::Directory), Just(FileType::Symlink)];
    let ids = || 0u32..u32::MAX;
    (kinds, 0u32..0o10000, ids(), ids(), -(1i64 << 35)..(1i64 << 35), 0u32..1_000_000_000, "\\PC{1,40}").prop_map(
        |(kind, mode, uid, gid, seconds, nanos, target)| Posix {
            kind: Some(kind),
            mode: Some(if kind == FileType::Symlink { 0o777 } else { permissions(mode, Some(kind)) }),
            uid: Some(uid),
            gid: Some(gid),
            mtime: Some(at(seconds, nanos)),
            symlink: (kind == FileType::Symlink).then_some(target),
        },
    )
}

proptest! {
    #[test]
    fn what_is_written_is_read(posix in any_posix(), own_uid in any::<bool>()) {
        // Defaults that no value here has, so that everything is written.
        let defaults = Defaults { uid: NO_ID, gid: NO_ID, file_mode: 0o10000, dir_mode: 0o10000 };
        let metadata = encode(&posix, &defaults);
        prop_assert_eq!(decode(&ObjectHeaders { metadata, ..Default::default() }), posix.clone());

        let defaults = if own_uid { Defaults { uid: posix.uid.unwrap(), ..DEFAULTS } } else { DEFAULTS };
        let read = decode(&ObjectHeaders { metadata: encode(&posix, &defaults), ..Default::default() });
        prop_assert_eq!(read.uid.unwrap_or(defaults.uid), posix.uid.unwrap());
        prop_assert_eq!(read.mtime, posix.mtime);
        prop_assert_eq!(read.symlink, posix.symlink);
    }

    #[test]
    fn no_text_breaks_it(name in "mode|uid|gid|mtime|mediafs-symlink", text in "[-+0-9.xe%a-f ]{0,24}|\\PC{0,8}") {
        let posix = decode(&headers(&[(&name, &text)]));
        prop_assert_eq!(posix.mode.unwrap_or(0) & !0o3777, 0);
        // What was understood is understood again from our own spelling of it.
        let defaults = Defaults { uid: NO_ID, gid: NO_ID, file_mode: 0o10000, dir_mode: 0o10000 };
        let again = decode(&ObjectHeaders { metadata: encode(&posix, &defaults), ..Default::default() });
        prop_assert_eq!((again.uid, again.gid, again.mtime), (posix.uid, posix.gid, posix.mtime));
        if posix.kind != Some(FileType::Symlink) {
            prop_assert_eq!(again.mode, posix.mode);
        }
    }
}
