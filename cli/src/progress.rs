//! What the user is told, all of it on standard error.

use std::io::Write;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::failure::Failure;
use crate::session::events::Step;
use crate::settings::{Form, Voice};

/// A start that takes less is told in one line.
const QUICK: Duration = Duration::from_secs(1);
/// A start that takes less shows no spinner.
const UNNOTICED: Duration = Duration::from_millis(250);

/// What our lines begin with.
const NAME: &str = "mirrord: ";
/// What the spinner shows, one after the other.
const FRAMES: [char; 10] = ['⠋', '⠙', '⠹', '⠸', '⠼', '⠴', '⠦', '⠧', '⠇', '⠏'];
/// Empties a terminal's line.
const CLEAR: &str = "\r\x1b[K";
/// What the lines of causes begin with.
const CAUSE: &str = "  caused by: ";
/// What the line of a hint begins with.
const HINT: &str = "hint: ";
/// What a command in a hint has in it.
const COMMANDS: &[&str] = &["docker ", "podman ", "mirrord ", "kubectl ", "sudo ", "ssh ", "$"];

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
    /// Which of its frames the spinner shows, if it is there.
    spinner: Option<usize>,
    waits_for: &'static str,
    raw: bool,
    now: fn(Instant) -> Duration,
    width: fn() -> Option<usize>,
}

impl Progress {
    /// To this process's standard error.
    pub fn new(voice: Voice) -> Self {
        Self::to(std::io::stderr(), voice, |began| began.elapsed(), width)
    }
}

/// How many columns the terminal has, if it knows.
fn width() -> Option<usize> {
    let size = rustix::termios::tcgetwinsize(std::io::stderr()).ok()?;
    Some(usize::from(size.ws_col)).filter(|columns| *columns > 0)
}

impl<W: Write> Progress<W> {
    fn to(
        out: W,
        voice: Voice,
        now: fn(Instant) -> Duration,
        width: fn() -> Option<usize>,
    ) -> Self {
        let began = Instant::now();
        let (waiting, waits_for) = (Vec::new(), "looking for the target");
        Self { voice, out, began, waiting, spinner: None, waits_for, raw: false, now, width }
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
        if self.voice.form == Form::Terminal {
            self.spin(age);
        }
        if age >= QUICK && self.names_steps() {
            self.flush_steps();
        }
    }

    /// Where there is no spinner, a slow start names its steps.
    fn names_steps(&self) -> bool {
        self.voice.form != Form::Terminal || self.voice.verbose > 0
    }

    /// Something is waited for.
    pub fn waits_for(&mut self, what: &'static str) {
        self.waits_for = what;
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
        self.waits_for(step.next());
        let slow = self.age() >= QUICK && self.names_steps();
        if self.voice.form == Form::Json || self.voice.verbose > 0 || slow {
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
        if age >= QUICK && self.names_steps() {
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
                let text = self.fold("mirrord: warning: ".len(), NAME.len(), &printable(text));
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
        let sentence = self.fold("mirrord: error: ".len(), NAME.len(), &printable(sentence));
        self.line(&format!("{word} {sentence}"));
        for line in causes.iter().flat_map(|cause| cause.lines()) {
            let line = self.fold(CAUSE.len(), CAUSE.len(), &printable(line));
            self.write(&format!("{CAUSE}{line}"));
        }
        if let Some(hint) = hint {
            let word = self.paint(Paint::Cyan, HINT.trim_end());
            let hint = printable(hint);
            // A command has to stay one line, for who copies it.
            let hint = match COMMANDS.iter().any(|command| hint.contains(command)) {
                true => hint,
                false => self.fold(HINT.len(), HINT.len(), &hint),
            };
            self.write(&format!("{word} {hint}"));
        }
    }

    /// Takes the spinner away.
    pub fn stop_spinner(&mut self) {
        if self.spinner.take().is_some() {
            self.print(CLEAR);
        }
    }

    /// Shows the spinner's next frame. There stays room behind it: for the `^C` that a terminal
    /// shows, which would break the line.
    fn spin(&mut self, age: Duration) {
        let next = self.spinner.map_or(0, |frame| (frame + 1) % FRAMES.len());
        let seconds = age.as_secs();
        let text = match seconds {
            0 => self.waits_for.to_owned(),
            _ => format!("{} {seconds} s", self.waits_for),
        };
        let room = (self.width)().unwrap_or(80).saturating_sub(3);
        let line: String = format!("{} {NAME}{text}", FRAMES[next]).chars().take(room).collect();
        self.print(&format!("{CLEAR}{line}"));
        self.spinner = Some(next);
    }

    fn talk(&mut self, value: &Value, paint: Paint) {
        if self.voice.quiet {
            return;
        }
        match self.voice.form {
            Form::Json => self.write(&value.to_string()),
            _ => {
                let text = printable(value["text"].as_str().unwrap_or_default());
                let text = self.fold(NAME.len(), NAME.len(), &text);
                let text = match paint {
                    Paint::Dim => self.paint(Paint::Dim, &text),
                    _ => text,
                };
                self.line(&text);
            }
        }
    }

    fn line(&mut self, text: &str) {
        let name = self.paint(Paint::Cyan, NAME.trim_end());
        self.write(&format!("{name} {text}"));
    }

    /// Breaks a text between words where it does not fit into the terminal's width: it begins in
    /// the column `before`, its other lines in `hang`.
    fn fold(&self, before: usize, hang: usize, text: &str) -> String {
        let width = (self.voice.form == Form::Terminal).then(self.width).flatten();
        let width = width.unwrap_or(usize::MAX);
        let (mut out, mut column) = (String::with_capacity(text.len()), before);
        // A number keeps its unit.
        let text = text.replace(" s)", "\u{a0}s)");
        for (number, word) in text.split(' ').enumerate() {
            let length = word.chars().count();
            if number > 0 && (column + 1).saturating_add(length) > width {
                out.push('\n');
                out.push_str(&" ".repeat(hang));
                column = hang;
            } else if number > 0 {
                out.push(' ');
                column += 1;
            }
            out.push_str(word);
            column += length;
        }
        out.replace('\u{a0}', " ")
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
        let text = match self.raw {
            true => text.replace('\n', "\r\n") + "\r\n",
            false => format!("{text}\n"),
        };
        // The spinner's next frame comes below.
        let clear = if self.spinner.is_some() { CLEAR } else { "" };
        self.print(&format!("{clear}{text}"));
    }

    fn print(&mut self, text: &str) {
        let _ = self.out.write_all(text.as_bytes()).and_then(|()| self.out.flush());
    }
}

fn millis(duration: Duration) -> u64 {
    crate::session::events::millis(duration)
}

/// What others have written must not steer a terminal.
fn printable(text: &str) -> String {
    let escaped = |c: char| c.is_control() && !matches!(c, '\n' | '\t');
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match escaped(c) {
            true => out.extend(c.escape_default()),
            false => out.push(c),
        }
    }
    out
}

fn seconds(duration: Duration) -> String {
    format!("{:.2} s", duration.as_secs_f64())
}

#[cfg(test)]
#[path = "progress_tests.rs"]
mod tests;
