//! Logs go to standard error, to a file, or from the background to systemd's journal. A panic becomes one log line: no stack
//! trace, and nothing ends because of it. Level and file can be renewed while the process runs.

use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal, Write};
use std::net::Shutdown;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::panic;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use tracing::{error, warn};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::FmtSpan;

use super::Failure;
use crate::config::Config;
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

/// Once in a process. Standard error, unless a file was named.
pub fn start(settings: &LogSettings) -> Result<(), Failure> {
    match &settings.file {
        Some(path) => {
            let file = Arc::new(Mutex::new(append(path)?));
            let shared = Arc::clone(&file);
            begin(settings, move || Appender(Arc::clone(&shared)), false);
            let _ = LOG_FILE.set((path.clone(), file));
        }
        None => begin(settings, io::stderr, io::stderr().is_terminal()),
    }
    Ok(())
}

/// For a daemon in the background, that has no standard error: the file that was named, else systemd's journal, else nothing.
pub fn start_unseen(config: &Config) -> Result<(), Failure> {
    match (&config.log.file, journal()) {
        (Some(_), _) => start(&config.log)?,
        (None, Ok(journal)) => begin(&config.log, std::sync::Mutex::new(journal), false),
        (None, Err(_)) => begin(&config.log, io::sink, false),
    }
    for warning in &config.warnings {
        warn!("{warning}");
    }
    Ok(())
}

/// Takes level and file over while the process runs; the file is opened anew, so that one that was moved away is left alone.
pub fn renew(settings: &LogSettings) {
    if let Some(set_level) = SET_LEVEL.get() {
        set_level(&settings.level);
    }
    let Some((path, file)) = LOG_FILE.get() else { return };
    match append(path) {
        Ok(opened) => *file.lock() = opened,
        Err(failure) => warn!("{failure}"),
    }
}

type SetLevel = Box<dyn Fn(&str) + Send + Sync>;

static SET_LEVEL: OnceLock<SetLevel> = OnceLock::new();
static LOG_FILE: OnceLock<(PathBuf, Arc<Mutex<File>>)> = OnceLock::new();

/// Writes whole lines into whatever file it is now.
struct Appender(Arc<Mutex<File>>);

impl Write for Appender {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.lock().write(line)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.lock().flush()
    }
}

fn append(path: &Path) -> Result<File, Failure> {
    let opened = OpenOptions::new().append(true).create(true).mode(0o600).open(path);
    opened.map_err(|error| Failure::Usage(format!("--log-file {}: can't write to it: {error}", path.display())))
}

/// The stream that a service's standard error is connected to, with the header that systemd-journald expects: identifier,
/// unit, priority (6: information), whether lines begin with one of their own, and forwarding to syslog, kernel and console.
fn journal() -> io::Result<UnixStream> {
    let mut stream = UnixStream::connect("/run/systemd/journal/stdout")?;
    stream.shutdown(Shutdown::Read)?;
    stream.write_all(b"mediafs\n\n6\n0\n0\n0\n0\n")?;
    Ok(stream)
}

fn begin<W>(settings: &LogSettings, writer: W, colours: bool)
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let filter = EnvFilter::new(directives(&settings.level));
    // At level debug each call and each upload has a line at its end, with the time that it worked and that it waited.
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_span_events(FmtSpan::CLOSE).with_writer(writer);
    let set_level: SetLevel = match settings.format {
        LogFormat::Text => {
            let lines = lines.with_target(false).with_ansi(colours).with_filter_reloading();
            let handle = lines.reload_handle();
            lines.init();
            Box::new(move |level| _ = handle.reload(EnvFilter::new(directives(level))))
        }
        LogFormat::Json => {
            let lines = lines.json().flatten_event(true).with_filter_reloading();
            let handle = lines.reload_handle();
            lines.init();
            Box::new(move |level| _ = handle.reload(EnvFilter::new(directives(level))))
        }
    };
    let _ = SET_LEVEL.set(set_level);
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
