//! What the user is told, all of it on standard error.

use std::io::Write;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::{Value, json};

use crate::failure::Failure;
use crate::session::events::Step;
use crate::settings::{Form, Voice};

/// A start that takes less is told in one line.
const QUICK: Duration = Duration::from_secs(1);
/// A start that takes less shows no spinner.
const UNNOTICED: Duration = Duration::from_millis(250);

/// Colours, as terminals number them.
#[derive(Clone, Copy)]
enum Paint {
    Red,
    Yellow,
    Cyan,
    Dim,
}

/// The one door to standard error.
pub struct Progress<W: Write = std::io::Stderr> {
    voice: Voice,
    out: W,
    began: Instant,
    waiting: Vec<Value>,
    spinner: Option<ProgressBar>,
    raw: bool,
    now: fn(Instant) -> Duration,
}

impl Progress {
    /// To this process's standard error.
    pub fn new(voice: Voice) -> Self {
        Self::to(std::io::stderr(), voice, |began| began.elapsed())
    }
}

impl<W: Write> Progress<W> {
    fn to(out: W, voice: Voice, now: fn(Instant) -> Duration) -> Self {
        let began = Instant::now();
        Self { voice, out, began, waiting: Vec::new(), spinner: None, raw: false, now }
    }

    fn age(&self) -> Duration {
        (self.now)(self.began)
    }

    /// From now on the terminal is raw: lines need a carriage return.
    pub fn raw(&mut self, raw: bool) {
        self.raw = raw;
    }

    /// Called now and then while a session comes up: shows that something goes on.
    pub fn tick(&mut self) {
        let age = self.age();
        if self.voice.quiet || age < UNNOTICED {
            return;
        }
        if self.voice.form == Form::Terminal && self.spinner.is_none() {
            let spinner = ProgressBar::new_spinner().with_elapsed(age);
            spinner.set_draw_target(ProgressDrawTarget::stderr());
            if let Ok(style) = ProgressStyle::with_template("{spinner} mirrord: {msg} {elapsed}") {
                spinner.set_style(style);
            }
            spinner.set_message("starting");
            spinner.enable_steady_tick(Duration::from_millis(100));
            self.spinner = Some(spinner);
        }
        if age >= QUICK {
            self.flush_steps();
        }
    }

    /// A step is done.
    pub fn step(&mut self, step: Step, took: u64) {
        let took = Duration::from_millis(took);
        self.waiting.push(json!({
            "event": "step",
            "step": step,
            "text": format!("{} ({})", step.done(), seconds(took)),
            "milliseconds": millis(took),
        }));
        if let Some(spinner) = &self.spinner {
            spinner.set_message(step.done());
        }
        if self.voice.form == Form::Json || self.voice.verbose > 0 || self.age() >= QUICK {
            self.flush_steps();
        }
    }

    fn flush_steps(&mut self) {
        for step in std::mem::take(&mut self.waiting) {
            self.talk(&step, Paint::Dim);
        }
    }

    /// The app starts now.
    pub fn ready(&mut self, what: &str) {
        let age = self.age();
        if age >= QUICK {
            self.flush_steps();
        }
        self.waiting.clear();
        self.stop_spinner();
        let text = format!("{what} ({})", seconds(age));
        self.talk(
            &json!({ "event": "ready", "text": text, "milliseconds": millis(age) }),
            Paint::Cyan,
        );
    }

    /// Something that the user may want to know.
    pub fn note(&mut self, text: &str) {
        self.talk(&json!({ "event": "note", "text": text }), Paint::Cyan);
    }

    /// The command ends here, and the session goes on.
    pub fn detached(&mut self, session: &str, text: &str) {
        let value = json!({ "event": "detached", "session": session, "text": text });
        self.talk(&value, Paint::Cyan);
    }

    /// Something that is told to those who asked for more.
    pub fn detail(&mut self, text: &str) {
        if self.voice.verbose > 0 || self.voice.form == Form::Json {
            self.talk(&json!({ "event": "detail", "text": text }), Paint::Dim);
        }
    }

    /// A line of the proxy's or the agent's log.
    pub fn log(&mut self, from: &str, line: &str) {
        if self.voice.verbose > 0 {
            let text = format!("{from}: {line}");
            self.talk(&json!({ "event": "log", "from": from, "text": text }), Paint::Dim);
        }
    }

    /// Something that is not as it should be and ends nothing.
    pub fn warning(&mut self, text: &str) {
        let value = json!({ "event": "warning", "text": text });
        match self.voice.form {
            _ if self.voice.quiet => {}
            Form::Json => self.talk(&value, Paint::Yellow),
            _ => {
                let word = self.paint(Paint::Yellow, "warning:");
                self.line(&format!("{word} {text}"));
            }
        }
    }

    /// What ends the command, or the session.
    pub fn failure(&mut self, failure: &Failure) {
        self.waiting.clear();
        self.stop_spinner();
        let Failure { sentence, causes, hint } = failure;
        if self.voice.form == Form::Json {
            let value =
                json!({ "event": "error", "text": sentence, "causes": causes, "hint": hint });
            self.write(&format!("{value}"));
            return;
        }
        let word = self.paint(Paint::Red, "error:");
        self.line(&format!("{word} {sentence}"));
        for cause in causes {
            for line in cause.lines() {
                self.write(&format!("  caused by: {line}"));
            }
        }
        if let Some(hint) = hint {
            let word = self.paint(Paint::Cyan, "hint:");
            self.write(&format!("{word} {hint}"));
        }
    }

    /// Takes the spinner away.
    pub fn stop_spinner(&mut self) {
        if let Some(spinner) = self.spinner.take() {
            spinner.finish_and_clear();
        }
    }

    fn talk(&mut self, value: &Value, paint: Paint) {
        if self.voice.quiet {
            return;
        }
        match self.voice.form {
            Form::Json => self.write(&value.to_string()),
            _ => {
                let text = value["text"].as_str().unwrap_or_default();
                let text = match paint {
                    Paint::Dim => self.paint(Paint::Dim, text),
                    _ => text.to_owned(),
                };
                self.line(&text);
            }
        }
    }

    fn line(&mut self, text: &str) {
        let name = self.paint(Paint::Cyan, "mirrord:");
        self.write(&format!("{name} {text}"));
    }

    fn paint(&self, paint: Paint, text: &str) -> String {
        let code = match paint {
            Paint::Red => "1;31",
            Paint::Yellow => "33",
            Paint::Cyan => "36",
            Paint::Dim => "2",
        };
        match self.voice.color {
            true => format!("\x1b[{code}m{text}\x1b[0m"),
            false => text.to_owned(),
        }
    }

    /// Standard error that is closed hears nothing, and that is no failure.
    fn write(&mut self, text: &str) {
        let end = if self.raw { "\r\n" } else { "\n" };
        let out = &mut self.out;
        let mut print = || {
            let _ = out.write_all(format!("{text}{end}").as_bytes()).and_then(|()| out.flush());
        };
        match &self.spinner {
            Some(spinner) => spinner.suspend(print),
            None => print(),
        }
    }
}

fn millis(duration: Duration) -> u64 {
    crate::session::events::millis(duration)
}

fn seconds(duration: Duration) -> String {
    format!("{:.2} s", duration.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;

    use super::*;

    const PLAIN: Voice = Voice { form: Form::Plain, verbose: 0, quiet: false, color: false };

    fn told(
        voice: Voice,
        now: fn(Instant) -> Duration,
        say: impl Fn(&mut Progress<Vec<u8>>),
    ) -> String {
        let mut progress = Progress::to(Vec::new(), voice, now);
        say(&mut progress);
        String::from_utf8(progress.out).expect("text")
    }

    fn quick(_: Instant) -> Duration {
        Duration::from_millis(240)
    }

    fn slow(_: Instant) -> Duration {
        Duration::from_millis(2400)
    }

    fn start(progress: &mut Progress<Vec<u8>>) {
        progress.step(Step::Target, 3);
        progress.step(Step::Sidecar, 130);
        progress.tick();
        progress.ready("in the place of container/web, its traffic mirrored");
    }

    fn failure() -> Failure {
        Failure::new("there is no container \"wbe\"")
            .because("No such container: wbe")
            .hint("did you mean web?")
    }

    #[test]
    fn a_quick_start_is_one_line() {
        assert_snapshot!(told(PLAIN, quick, start), @"mirrord: in the place of container/web, its traffic mirrored (0.24 s)");
    }

    #[test]
    fn a_slow_start_names_its_steps() {
        assert_snapshot!(told(PLAIN, slow, start), @r"
        mirrord: target found (0.00 s)
        mirrord: sidecar started (0.13 s)
        mirrord: in the place of container/web, its traffic mirrored (2.40 s)
        ");
    }

    #[test]
    fn json_is_a_value_a_line() {
        let voice = Voice { form: Form::Json, ..PLAIN };
        let told = told(voice, quick, |progress| {
            start(progress);
            progress.failure(&failure());
        });
        assert_snapshot!(told, @r#"
        {"event":"step","milliseconds":3,"step":"target","text":"target found (0.00 s)"}
        {"event":"step","milliseconds":130,"step":"sidecar","text":"sidecar started (0.13 s)"}
        {"event":"ready","milliseconds":240,"text":"in the place of container/web, its traffic mirrored (0.24 s)"}
        {"causes":["No such container: wbe"],"event":"error","hint":"did you mean web?","text":"there is no container \"wbe\""}
        "#);
    }

    #[test]
    fn an_error_has_its_causes_and_a_hint() {
        let told = told(PLAIN, quick, |progress| progress.failure(&failure()));
        assert_snapshot!(told, @r#"
        mirrord: error: there is no container "wbe"
          caused by: No such container: wbe
        hint: did you mean web?
        "#);
    }

    #[test]
    fn quiet_says_errors_alone() {
        let voice = Voice { quiet: true, ..PLAIN };
        let told = told(voice, slow, |progress| {
            start(progress);
            progress.warning("w");
            progress.failure(&Failure::new("no"));
        });
        assert_eq!(told, "mirrord: error: no\n");
    }

    #[test]
    fn verbose_shows_each_step_and_the_log() {
        let voice = Voice { verbose: 1, ..PLAIN };
        let told = told(voice, quick, |progress| {
            start(progress);
            progress.log("proxy", "hello");
        });
        assert_snapshot!(told, @r"
        mirrord: target found (0.00 s)
        mirrord: sidecar started (0.13 s)
        mirrord: in the place of container/web, its traffic mirrored (0.24 s)
        mirrord: proxy: hello
        ");
    }

    #[test]
    fn a_raw_terminal_gets_carriage_returns_and_colours_are_asked_for() {
        let voice = Voice { color: true, ..PLAIN };
        let told = told(voice, quick, |progress| {
            progress.raw(true);
            progress.warning("w");
        });
        assert_eq!(told, "\u{1b}[36mmirrord:\u{1b}[0m \u{1b}[33mwarning:\u{1b}[0m w\r\n");
    }
}
