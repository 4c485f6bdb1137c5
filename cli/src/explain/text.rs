//! A plan as people read it.

use std::fmt;

use super::Explanation;
use super::calls::Call;
use super::flags::{FlagPlan, Where};

impl Where {
    fn word(self) -> &'static str {
        match self {
            Self::Passes => "passes",
            Self::Moves => "moves to the sidecar",
            Self::Handled => "is handled",
            Self::Refused => "is refused",
        }
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(place) = &self.place {
            writeln!(f, "{place}")?;
        }
        if let Some(plane) = self.plane {
            writeln!(f, "redirected by {plane}")?;
        }
        if let Some(engine) = &self.engine {
            writeln!(f, "engine: {engine}")?;
        }
        let flag = |it: &FlagPlan| [it.flag.clone(), it.place.word().to_owned(), it.why.clone()];
        table(f, "flags", self.flags.iter().map(flag))?;
        let row = |call: &Call| [call.call.clone(), call.why.to_owned(), String::new()];
        table(f, "calls, in order", self.calls.before.iter().map(row))?;
        if !self.command.is_empty() {
            let words: Vec<String> = self.command.iter().map(|word| quoted(word)).collect();
            writeln!(f, "\nthen:\n  {}", words.join(" "))?;
        }
        table(f, "calls while it runs, and at its end", self.calls.after.iter().map(row))?;
        match &self.refused {
            Some(failure) => writeln!(f, "\nnothing would be started: {failure}"),
            None => writeln!(f, "\nnothing was started"),
        }
    }
}

fn table(
    f: &mut fmt::Formatter<'_>,
    title: &str,
    rows: impl Iterator<Item = [String; 3]>,
) -> fmt::Result {
    let rows: Vec<_> = rows.collect();
    if rows.is_empty() {
        return Ok(());
    }
    let width = |column: usize| {
        let widths = rows.iter().map(|row| row[column].chars().count());
        widths.max().unwrap_or_default().min(60)
    };
    let (first, second) = (width(0), width(1));
    writeln!(f, "\n{title}:")?;
    for [a, b, c] in &rows {
        writeln!(f, "  {}", format!("{a:first$}  {b:second$}  {c}").trim_end())?;
    }
    Ok(())
}

/// A word as a shell reads it.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || "-_./:=,@%+…".contains(c);
    match !word.is_empty() && word.chars().all(plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', "'\\''")),
    }
}
