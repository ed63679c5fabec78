//! Logs go to standard error. A panic becomes one log line: no stack trace, and nothing ends because of it.

use std::io::{self, IsTerminal};
use std::panic;

use tracing::error;
use tracing_subscriber::EnvFilter;

use crate::daemon::{LogFormat, LogSettings};

/// What libraries say is of interest where it is a warning, or where somebody looks for a bug. The SDK's warnings are
/// told again, in better words, by who asked it; what fuser complains of is an answer that nobody waits for any more.
fn directives(level: &str) -> String {
    match level {
        "trace" => "debug,mediafs=trace".to_owned(),
        "error" => "error,fuser=off".to_owned(),
        level => format!(
            "warn,fuser=off,aws_config=error,aws_smithy_runtime=error,aws_smithy_http_client=error,aws_runtime=error,s3s=error,mediafs={level}"
        ),
    }
}

/// Once in a process.
pub fn start(settings: &LogSettings) {
    let filter = EnvFilter::new(directives(&settings.level));
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    match settings.format {
        LogFormat::Text => lines.with_target(false).with_ansi(io::stderr().is_terminal()).init(),
        LogFormat::Json => lines.json().flatten_event(true).init(),
    }
    panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        let text = panic.payload_as_str().unwrap_or("no text");
        error!(place, "a bug in mediafs: {text}");
    }));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_level_makes_a_filter() {
        for level in ["error", "warn", "info", "debug", "trace"] {
            assert!(EnvFilter::try_new(directives(level)).is_ok(), "{level}");
        }
    }
}
