//! `mirrord`: run a container on this machine in another one's place.
//!
//! ```text
//!   args ─► settings ─┐
//!                     ├─► front ─► session (keeper) ─► engine
//!   docker_run ───────┘     └────► docker run
//! ```

#![forbid(unsafe_code)]

mod args;
mod cluster;
mod compose;
mod config;
mod docker_run;
mod doctor;
mod engine;
mod env_rules;
mod exit;
mod explain;
mod failure;
mod front;
mod layer;
mod list;
mod lock;
mod output;
mod plugin;
mod program;
mod progress;
mod session;
mod sessions;
mod settings;
mod stand;
mod target;

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use mirrord_proxy::PipeHeader;

use crate::args::{Cli, Command, Options};
use crate::compose::Wrapped;
use crate::config::Verdict;
use crate::docker_run::client::{DOCKER, PODMAN};
use crate::docker_run::{Client, Line, parse};
use crate::doctor::DoctorArgs;
use crate::explain::Explanation;
use crate::failure::Failure;
use crate::front::trampoline;
use crate::list::ListArgs;
use crate::plugin::Call;
use crate::progress::Progress;
use crate::sessions::{StatusArgs, StopArgs};
use crate::settings::{Settings, Voice};
use crate::stand::UpArgs;

fn main() -> ExitCode {
    let words: Vec<OsString> = std::env::args_os().collect();
    if words.get(1).is_some_and(|word| word == trampoline::NAME) {
        return trampoline::run(&words[2..]);
    }
    if plugin::is_plugin(words.first()) {
        return as_plugin(&words);
    }
    obey(&words, None)
}

/// docker has called us.
fn as_plugin(words: &[OsString]) -> ExitCode {
    let call = Call::of(&words[1..]);
    if let Some(metadata) = call.metadata() {
        println!("{metadata}");
        return ExitCode::SUCCESS;
    }
    plugin::end_with_docker();
    let words: Vec<OsString> = ["docker mirrord".into()].into_iter().chain(call.words).collect();
    obey(&words, Some(call.globals))
}

/// Does what the words say; `globals` are docker's own flags if docker has called us.
fn obey(words: &[OsString], globals: Option<Vec<OsString>>) -> ExitCode {
    let cli = match Cli::read(words) {
        Ok(cli) => cli,
        Err(error) => return misuse(words, &error),
    };
    match cli.command {
        Command::Docker { words } => run_front(&cli.options, &DOCKER, &words),
        Command::Podman { words } => run_front(&cli.options, &PODMAN, &words),
        Command::Nerdctl { .. } => fail(&mut Progress::new(Voice::of(&cli.options)), &nerdctl()),
        Command::Run { words } => run_of_docker(&cli.options, globals, &words),
        Command::Container { options, words } => container(&cli.options, &options, &words),
        Command::Up(args) => up(&args.options.clone().over(&cli.options), &args),
        Command::Down { name } => down(&cli.options, &name),
        Command::Ls(args) => ls(&cli.options, &args),
        Command::Status(args) => status(&cli.options, &args),
        Command::Stop(args) => stop(&cli.options, &args),
        Command::Doctor(args) => doctor(&cli.options, &args),
        Command::VerifyConfig { file } => verify_config(&cli.options, &file),
        Command::Completions { shell } => print(&cli.options, &args::completions(shell), 0),
        Command::Exec { options, words } => exec(&options.over(&cli.options), &words),
        Command::Proxy { pipe: Some(target), container, folder, direct, .. } => {
            mirrord_proxy::run_pipe(&PipeHeader { target, container, direct }, &folder)
        }
        Command::Proxy { check: true, .. } => mirrord_proxy::check(),
        Command::Proxy { worker: true, .. } => mirrord_proxy::run_worker(layer::STATIC_LAYER),
        Command::Proxy { worker: false, .. } => mirrord_proxy::run(),
        Command::Agent { pipe: true } => mirrord_agent::run_pipe(),
        Command::Agent { pipe: false } => mirrord_agent::run(),
        Command::Compose { words } => compose::run_provider(&words),
        Command::Session => session::keeper::run(),
    }
}

fn verify_config(options: &Options, file: &Path) -> ExitCode {
    let verdict = Verdict::of(file);
    print(options, &format!("{verdict}\n"), if verdict.is_good() { 0 } else { exit::FAILED })
}

/// Writes data to standard output; the code is the given one, if it could be.
fn print(options: &Options, text: &str, code: u8) -> ExitCode {
    match output::write(text) {
        Ok(()) => ExitCode::from(code),
        Err(failure) => {
            Progress::new(Voice::of(options)).failure(&failure);
            ExitCode::from(exit::FAILED)
        }
    }
}

fn misuse(words: &[OsString], error: &clap::Error) -> ExitCode {
    // Without a word the whole help is shown: there is no one sentence to it.
    if !error.use_stderr() || words.len() < 2 {
        let _ = error.print();
    } else {
        Progress::new(Voice::of(&Options::default())).failure(&explain(error));
    }
    match error.use_stderr() {
        false => ExitCode::SUCCESS,
        true if args::is_run_front(words) => ExitCode::from(exit::NOTHING_RAN),
        true => ExitCode::from(exit::MISUSE),
    }
}

/// The parser's error in our form: its first paragraph, and its tip as the hint.
fn explain(error: &clap::Error) -> Failure {
    let text = error.render().to_string();
    let sentence: Vec<&str> =
        text.lines().take_while(|line| !line.trim().is_empty()).map(str::trim).collect();
    let sentence = sentence.join(" ");
    let tip = text.lines().find_map(|line| line.trim().strip_prefix("tip: "));
    Failure::new(sentence.trim_start_matches("error: ")).hint(tip.unwrap_or("see mirrord --help"))
}

/// `docker GLOBALS mirrord OPTIONS run WORDS`.
fn run_of_docker(
    options: &Options,
    globals: Option<Vec<OsString>>,
    words: &[OsString],
) -> ExitCode {
    let Some(mut line) = globals else {
        let failure = Failure::new("'run' is a word of docker's")
            .hint("put docker before it: mirrord [OPTIONS] docker run …");
        return fail(&mut Progress::new(Voice::of(options)), &failure);
    };
    line.push("run".into());
    line.extend(words.iter().cloned());
    run_front(options, &DOCKER, &line)
}

/// `mirrord container [OPTIONS] -- docker run …`: the options may stand on either side.
fn container(before: &Options, behind: &Options, words: &[OsString]) -> ExitCode {
    let options = &behind.clone().over(before);
    match words.split_first() {
        Some((program, words)) if program == "docker" => run_front(options, &DOCKER, words),
        Some((program, words)) if program == "podman" => run_front(options, &PODMAN, words),
        program => {
            let name = program.map(|(name, _)| name.to_string_lossy()).unwrap_or_default();
            let failure = Failure::new(format!("cannot run containers with {name:?}"))
                .hint("use docker or podman: mirrord container [OPTIONS] -- docker run …");
            fail(&mut Progress::new(Voice::of(options)), &failure)
        }
    }
}

/// Prints a plan; the code is that of its refusal, if it is one.
fn explain_line(options: &Options, plan: &Explanation, refused: u8) -> ExitCode {
    let code = plan.refused().map_or(0, |_| refused);
    let printed = print(options, &plan.text(options.output.unwrap_or_default()), code);
    if let Some(failure) = plan.refused() {
        Progress::new(Voice::of(options)).failure(failure);
    }
    printed
}

fn exec(options: &Options, words: &[OsString]) -> ExitCode {
    if options.explain {
        return explain_line(options, &explain::process(options, words), exit::FAILED);
    }
    let mut progress = Progress::new(Voice::of(options));
    let code = settle(options, &mut progress)
        .map_err(|failure| (failure, exit::FAILED))
        .and_then(|settings| front::run_process(&settings, words, &mut progress));
    ExitCode::from(code.unwrap_or_else(|(failure, code)| {
        progress.failure(&failure);
        code
    }))
}

fn up(options: &Options, args: &UpArgs) -> ExitCode {
    let mut progress = Progress::new(Voice::of(options));
    let done = settle(options, &mut progress)
        .and_then(|settings| stand::up(args, &settings, &mut progress));
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failed(&mut progress, &failure),
    }
}

fn down(options: &Options, name: &str) -> ExitCode {
    match stand::down(name) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failed(&mut Progress::new(Voice::of(options)), &failure),
    }
}

/// The settings; what the user should know of them is said.
fn settle(options: &Options, progress: &mut Progress) -> Result<Settings, Failure> {
    let settings = Settings::of(options)?;
    settings.warnings.iter().for_each(|warning| progress.warning(warning));
    Ok(settings)
}

fn ls(options: &Options, args: &ListArgs) -> ExitCode {
    let mut progress = Progress::new(Voice::of(options));
    match list::run(args, options, &mut progress) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failed(&mut progress, &failure),
    }
}

fn doctor(options: &Options, args: &DoctorArgs) -> ExitCode {
    match doctor::run(args, options) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(exit::FAILED),
        Err(failure) => failed(&mut Progress::new(Voice::of(options)), &failure),
    }
}

fn status(options: &Options, args: &StatusArgs) -> ExitCode {
    let mut progress = Progress::new(Voice::of(options));
    match sessions::status(args, &mut progress) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failed(&mut progress, &failure),
    }
}

fn stop(options: &Options, args: &StopArgs) -> ExitCode {
    let mut progress = Progress::new(Voice::of(options));
    match sessions::stop(args, &mut progress) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(exit::FAILED),
        Err(failure) => failed(&mut progress, &failure),
    }
}

fn failed(progress: &mut Progress, failure: &Failure) -> ExitCode {
    progress.failure(failure);
    ExitCode::from(exit::FAILED)
}

fn nerdctl() -> Failure {
    Failure::new("nerdctl's containerd has no API of Docker's, with which a session is made")
        .hint("use docker or podman on the same machine: mirrord … docker run …")
}

/// `docker compose …`: compose takes our place, unless something is wrong.
fn run_compose(options: &Options, words: &[OsString], line: &compose::Line) -> ExitCode {
    let mut progress = Progress::new(Voice::of(options));
    match compose::wrap(options, words, line) {
        Ok(Wrapped::Explained(text)) => print(options, &text, 0),
        Ok(Wrapped::Failed(failure)) | Err(failure) => failed(&mut progress, &failure),
    }
}

fn run_front(options: &Options, client: &'static Client, words: &[OsString]) -> ExitCode {
    if client.program == DOCKER.program
        && let Some(line) = compose::Line::of(words)
    {
        return run_compose(options, words, &line);
    }
    if options.service.is_some() {
        let failure = Failure::new("--service names a service of a compose project")
            .hint("leave it out, or put docker compose behind the options");
        return fail(&mut Progress::new(Voice::of(options)), &failure);
    }
    if options.explain {
        let plan = explain::container(options, client, words);
        return explain_line(options, &plan, exit::NOTHING_RAN);
    }
    let mut progress = Progress::new(Voice::of(options));
    let code = match parse::line(client, words) {
        Ok(Line::Docker) => Err(front::replace(client, words)),
        Ok(Line::Run(run)) => settle(options, &mut progress)
            .and_then(|settings| front::run_container(&settings, *run, &mut progress)),
        Err(error) => Err(error.failure(client)),
    };
    match code {
        Ok(code) => ExitCode::from(code),
        Err(failure) => fail(&mut progress, &failure.with_program(client.program)),
    }
}

fn fail(progress: &mut Progress, failure: &Failure) -> ExitCode {
    progress.failure(failure);
    ExitCode::from(exit::NOTHING_RAN)
}
