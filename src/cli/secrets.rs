//! Secrets of the surroundings: taken out of what /proc shows of this process, and files with them that everybody can read.

use std::env;
use std::ffi::CString;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// What AWS' tools and R2's users keep in the environment.
const SECRETS: [&str; 5] =
    ["AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_SECURITY_TOKEN", "AWS_CONTAINER_AUTHORIZATION_TOKEN", "R2_SECRET_ACCESS_KEY"];

/// Overwrites the secrets in the memory that /proc/PID/environ shows; their variables stay, in memory that it doesn't. For the
/// beginning of a process, before it has a second thread.
pub fn hide() {
    for name in SECRETS {
        let (Some(value), Ok(name_bytes)) = (env::var_os(name), CString::new(name)) else { continue };
        // SAFETY: a NUL-terminated name; no other thread changes the environment.
        let shown = unsafe { libc::getenv(name_bytes.as_ptr()) };
        // SAFETY: no other thread reads or changes the environment.
        unsafe { env::set_var(name, &value) };
        // SAFETY: as for the first.
        let kept = unsafe { libc::getenv(name_bytes.as_ptr()) };
        if shown.is_null() || shown == kept {
            continue;
        }
        for at in 0..value.len() {
            // SAFETY: the kernel put that many bytes of the value there, for this process to write; nothing points to them now.
            unsafe { shown.add(at).write_volatile(0) };
        }
    }
}

/// One warning for each file that keys are taken from, `named` or where AWS' tools look, and that everybody on this machine can read.
pub fn exposed(variable: &dyn Fn(&str) -> Option<String>, named: Option<&Path>) -> Vec<String> {
    let home = |name: &str| variable("HOME").map(|home| PathBuf::from(home).join(".aws").join(name));
    let file = |name: &str, default: Option<PathBuf>| variable(name).filter(|path| !path.is_empty()).map(PathBuf::from).or(default);
    let places = [
        named.map(Path::to_owned),
        file("AWS_SHARED_CREDENTIALS_FILE", home("credentials")),
        file("AWS_CONFIG_FILE", home("config")),
        file("AWS_WEB_IDENTITY_TOKEN_FILE", None),
        file("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", None),
    ];
    places.into_iter().flatten().filter_map(warning).collect()
}

fn warning(path: PathBuf) -> Option<String> {
    let mode = fs::metadata(&path).ok().filter(fs::Metadata::is_file)?.permissions().mode() & 0o777;
    // A profile's region is nobody's secret.
    let has_keys = || fs::read(&path).is_ok_and(|text| !path.ends_with("config") || text.windows(6).any(|word| word == b"secret"));
    let shown = path.display().to_string().escape_debug().to_string();
    (mode & 0o004 != 0 && has_keys())
        .then(|| format!("{shown} holds credentials and everybody on this machine can read it (mode 0{mode:o}): chmod 600 {shown}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_with_keys_that_everybody_reads_are_named() {
        let home = tempfile::tempdir().expect("folder");
        let aws = home.path().join(".aws");
        fs::create_dir(&aws).expect("folder");
        let (credentials, config, token) = (aws.join("credentials"), aws.join("config"), home.path().join("token"));
        let variable = |name: &str| match name {
            "HOME" => home.path().to_str().map(str::to_owned),
            "AWS_WEB_IDENTITY_TOKEN_FILE" => token.to_str().map(str::to_owned),
            _ => None,
        };
        assert!(exposed(&variable, None).is_empty(), "there is none");
        fs::write(&credentials, "[default]\naws_secret_access_key = x\n").expect("file");
        fs::write(&config, "[default]\nregion = x\n").expect("file");
        fs::write(&token, "x").expect("file");
        let set = |path: &PathBuf, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("mode");
        [(&credentials, 0o644), (&config, 0o644), (&token, 0o604)].into_iter().for_each(|(path, mode)| set(path, mode));
        let told = exposed(&variable, None);
        assert_eq!(told.len(), 2, "{told:?}");
        assert!(told[0].contains("credentials") && told[0].contains("(mode 0644)") && told[1].contains("token"), "{told:?}");
        fs::write(&config, "[default]\naws_secret_access_key = x\n").expect("file");
        assert_eq!(exposed(&variable, None).len(), 3);
        assert_eq!(exposed(&variable, Some(&token)).len(), 4, "named itself");
        [(&credentials, 0o640), (&config, 0o600), (&token, 0o400)].into_iter().for_each(|(path, mode)| set(path, mode));
        assert!(exposed(&variable, None).is_empty());
    }
}
