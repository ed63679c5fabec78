//! `mediafs emulator`, for test scripts: an S3 or R2 on this machine, until it is told to end.

use std::io::{self, BufRead, Write};
use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Arg, ArgAction, ArgMatches, Command};

use super::{Failure, logging};
use crate::daemon::{self, LogFormat, LogSettings, Signals};
use crate::emulator::{Control, Emulator, EmulatorConfig};

pub fn command() -> Command {
    Command::new("emulator")
        .hide(true)
        .about("Serve S3 from a folder or from memory; prints the endpoint when it answers")
        .arg(
            Arg::new("address")
                .long("address")
                .value_name("HOST:PORT")
                .default_value("127.0.0.1:0")
                .value_parser(clap::value_parser!(SocketAddr)),
        )
        .arg(Arg::new("folder").long("folder").value_name("DIR").value_parser(clap::value_parser!(PathBuf)).help("In memory without it"))
        .arg(Arg::new("bucket").long("bucket").value_name("NAME").action(ArgAction::Append).help("Made at the start; may be repeated"))
        .arg(Arg::new("access-key").long("access-key").value_name("KEY").help("[default: mediafs]"))
        .arg(Arg::new("secret-key").long("secret-key").value_name("SECRET").help("For tests only [default: mediafs-secret]"))
        .arg(Arg::new("region").long("region").value_name("REGION").help("The only one that requests may be signed for [default: any]"))
        .arg(Arg::new("r2").long("r2").action(ArgAction::SetTrue).help("Refuse what Cloudflare R2 refuses"))
        .arg(
            Arg::new("control")
                .long("control")
                .action(ArgAction::SetTrue)
                .help("Take commands about faults on standard input, a line of JSON each, and answer on standard output"),
        )
}

pub fn run(arguments: &ArgMatches) -> Result<(), Failure> {
    logging::start(&LogSettings { level: "info".to_owned(), format: LogFormat::Text, file: None })?;
    let mut config = EmulatorConfig {
        folder: arguments.get_one::<PathBuf>("folder").cloned(),
        r2: arguments.get_flag("r2"),
        region: arguments.get_one::<String>("region").cloned(),
        buckets: arguments.get_many::<String>("bucket").into_iter().flatten().cloned().collect(),
        ..EmulatorConfig::default()
    };
    if let Some(address) = arguments.get_one::<SocketAddr>("address") {
        config.address = *address;
    }
    for (name, field) in [("access-key", &mut config.access_key), ("secret-key", &mut config.secret_key)] {
        if let Some(text) = arguments.get_one::<String>(name) {
            text.clone_into(field);
        }
    }
    daemon::runtime()?.block_on(async {
        let mut signals = Signals::listen()?;
        let emulator = Emulator::start(config).await?;
        let mut output = io::stdout();
        writeln!(output, "{}", emulator.endpoint())?;
        output.flush()?;
        if arguments.get_flag("control") {
            let control = emulator.control();
            // A thread of its own, since reading standard input can't be ended; the process doesn't wait for it.
            std::thread::spawn(move || obey(&control));
        }
        signals.next().await;
        emulator.stop().await;
        Ok(())
    })
}

/// Until standard input ends.
fn obey(control: &Control) {
    for line in io::stdin().lock().lines().map_while(Result::ok) {
        let mut output = io::stdout().lock();
        let answered = writeln!(output, "{}", control.obey(&line)).and_then(|()| output.flush());
        if answered.is_err() {
            return;
        }
    }
}
