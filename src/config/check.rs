//! A configuration file by itself: all its mistakes at once, and one that shows every option. Pure.

use std::fmt::Write;
use std::path::Path;

use super::layers::{self, Layer, Layers, Origin};
use super::{ConfigError, OPTIONS, Surroundings, VfsFlags, resolve};

/// In order: a file that is no TOML has one.
pub fn mistakes(path: &str, text: &str, around: &Surroundings) -> Vec<ConfigError> {
    let (options, mut found) = match layers::read(path, text) {
        Ok(read) => (read.options, read.mistakes),
        Err(error) => return vec![error],
    };
    // What stands in one option is judged without the others, so that the first mistake doesn't hide the next.
    let origin = Origin::File(path.to_owned());
    let own_place = Layer::new(&Origin::Default, [("cache-dir", "/var/cache/mediafs/media")]);
    for option in options {
        let layers = Layers(vec![Layer::new(&origin, [option]), own_place.clone()]);
        found.extend(resolve("s3://media", Path::new("/srv/media"), &layers, VfsFlags::default(), around).err());
    }
    found
}

/// A file in which every option stands as a comment, with what it means and its default.
pub fn example() -> String {
    let mut text = "# Options of a mount: mediafs mount --config FILE, or mount -o config=FILE. What is commented out is the default,\n\
                    # or an example where there is none. `mediafs config check FILE` finds mistakes; SIGHUP has the file read again.\n"
        .to_owned();
    for option in OPTIONS {
        let value = match (option.value, option.default) {
            (None, _) => "false".to_owned(),
            (_, "") => format!("{:?}", sample(option.name)),
            (_, default) => format!("{default:?}"),
        };
        // Writing to a String can't fail.
        let _ = write!(text, "\n# {}.\n# {} = {value}\n", option.help, option.name);
    }
    text.push_str(TABLES);
    text
}

fn sample(name: &str) -> &'static str {
    match name {
        "endpoint-url" => "https://s3.example.com",
        "region" => "eu-central-1",
        "ca-file" => "/etc/ssl/own-ca.pem",
        "credentials-file" => "/etc/mediafs/media.credentials",
        "profile" => "default",
        "cache-dir" => "/var/cache/mediafs/media",
        "free-space-floor" => "5%",
        "run-as" => "mediafs",
        "uid" | "gid" => "www-data",
        "public-url-base" => "https://media.example.com",
        "metrics" => "9464",
        "log-file" => "/var/log/mediafs.log",
        _ => "",
    }
}

const TABLES: &str = r#"
# Headers of objects by path: in each table the first pattern that matches counts. Also [content-type],
# [content-encoding], [content-language] and [storage-class].

# [cache-control]
# "static/**" = "public, max-age=31536000, immutable"
# "*.jpg" = "public, max-age=86400"

# [content-disposition]
# "invoices/**" = "attachment"

# [metadata]
# "invoices/**" = { department = "sales" }

# Stored compressed, for a CDN that sends it so.

# [gzip]
# "*.{css,js,svg}" = true

# What `status` reckons with, in dollars: a million writes (PUT, COPY, POST, LIST), a million reads (GET, HEAD), a GB that
# leaves the bucket. R2 and AWS have their list prices without this table, other stores none.

# [prices]
# write = 5.00
# read = 0.40
# sent = 0.09
"#;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::Account;

    fn found(text: &str) -> Vec<String> {
        let account = |name: &str| (name == "mediafs").then(|| Account { name: name.into(), uid: 990, gid: 990 });
        let user = |name: &str| (name == "www-data").then_some(33);
        let around =
            Surroundings { variable: &|_| None, uid: 0, gid: 0, user: &user, group: &user, account: &account, directory: Path::new("/") };
        mistakes("m.toml", text, &around).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn all_mistakes_are_told_at_once() {
        let all = found(
            "cache-sise = '1GiB'\nttl = 'soon'\nsecret-access-key = 'x'\nuid = 'nobody-here'\nmetrics = [1]\n\
             [cache-control]\n'a/' = 'x'\n[prices]\nwrites = 5\n",
        );
        let parts = [
            "did you mean cache-size?",
            "secrets",
            "metrics takes a text",
            "write a/** for everything",
            "did you mean write?",
            "ttl = \"soon\" in m.toml: write a time",
            "no user of that name",
        ];
        for part in parts {
            assert!(all.iter().any(|line| line.contains(part) && line.contains("m.toml")), "{part:?} is missing in {all:#?}");
        }
        assert_eq!(all.len(), parts.len(), "{all:#?}");
        assert!(!all.iter().any(|line| line.contains('\n') || line.contains("'x'")));
        assert_eq!(found("ttl = 1\nuid = = 3").len(), 1);
    }

    #[test]
    fn the_example_holds_every_option_and_is_right_as_it_is_and_without_its_comments() {
        assert_eq!(found(&example()), [""; 0]);
        let lines = example();
        let is_prose = |line: &str| !(line.contains(" = ") || line.starts_with('[') && line.ends_with(']'));
        let live = lines.lines().filter_map(|line| line.strip_prefix("# ")).filter(|line| !is_prose(line)).collect::<Vec<_>>().join("\n");
        assert_eq!(found(&live), [""; 0], "{live}");
        for option in OPTIONS {
            assert!(live.contains(&format!("{} = ", option.name)), "{}", option.name);
        }
        let tables = layers::read("m.toml", &live).expect("TOML");
        assert_eq!(tables.options.len(), OPTIONS.len());
    }
}
