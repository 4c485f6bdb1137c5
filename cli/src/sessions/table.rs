//! Sessions as a table, with what happened last beneath each.

use k8s_openapi::jiff::Timestamp;
use mirrord_protocol::control::IncomingMode;

use crate::session::record::{App, State, Status};

const HEAD: [&str; 8] = ["SESSION", "TARGET", "APP", "PLANE", "TRAFFIC", "PORTS", "SINCE", "STATE"];
/// How many events are shown of each session.
const EVENTS: usize = 3;
/// A command that is longer is cut.
const LONGEST: usize = 40;

/// The table.
pub fn of(sessions: &[&Status]) -> String {
    let now = Timestamp::now();
    let rows: Vec<[String; 8]> = sessions.iter().map(|status| row(status, now)).collect();
    let all: Vec<[&str; 8]> = std::iter::once(HEAD)
        .chain(rows.iter().map(|row| row.each_ref().map(String::as_str)))
        .collect();
    let width =
        |column: usize| all.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; 8] = std::array::from_fn(width);
    let mut text = String::new();
    for (number, row) in all.iter().enumerate() {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}"));
        text += cells.collect::<Vec<_>>().join("  ").trim_end();
        text.push('\n');
        if let Some(status) = number.checked_sub(1).and_then(|session| sessions.get(session)) {
            for told in status.events.iter().rev().take(EVENTS).rev() {
                text += &format!("  {} {}\n", told.at, told.text);
            }
        }
    }
    text
}

fn row(status: &Status, now: Timestamp) -> [String; 8] {
    let or_dash = |text: &str| if text.is_empty() { "-".to_owned() } else { text.to_owned() };
    let target = match (&status.target, &status.namespace) {
        (Some(target), Some(namespace)) => format!("{target} -n {namespace}"),
        (Some(target), None) => target.clone(),
        (None, _) => String::new(),
    };
    let traffic = match status.incoming {
        Some(IncomingMode::Steal) => "steal",
        Some(IncomingMode::Mirror) => "mirror",
        Some(IncomingMode::Off) => "none",
        None => "",
    };
    let ports: Vec<&str> = status.ports.iter().map(String::as_str).collect();
    [
        status.session.clone(),
        or_dash(&target),
        or_dash(&app(&status.app)),
        or_dash(&status.plane),
        or_dash(traffic),
        or_dash(&ports.join(",")),
        or_dash(&age(&status.since, now)),
        state(status.state).to_owned(),
    ]
}

fn app(app: &App) -> String {
    let words = match &app.container {
        Some(name) => name.clone(),
        None => app.image.iter().chain(&app.command).cloned().collect::<Vec<_>>().join(" "),
    };
    match words.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &words[..end]),
        None => words,
    }
}

fn state(state: State) -> &'static str {
    match state {
        State::Up => "up",
        State::Reconnecting => "reconnecting",
        State::Stopping => "stopping",
        State::Lost => "lost",
        State::Elsewhere => "kept elsewhere",
    }
}

fn age(since: &str, now: Timestamp) -> String {
    let Ok(since) = since.parse::<Timestamp>() else { return String::new() };
    match (now.as_second() - since.as_second()).max(0) {
        seconds @ ..120 => format!("{seconds} s"),
        seconds @ ..7200 => format!("{} min", seconds / 60),
        seconds @ ..172_800 => format!("{} h", seconds / 3600),
        seconds => format!("{} d", seconds / 86400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::record::Told;

    #[test]
    fn the_table_says_all_of_a_session_and_what_happened() {
        let told = Told {
            at: "2026-01-01T00:00:00Z".to_owned(),
            text: "a new agent".to_owned(),
            ends: false,
            log: false,
        };
        let app = App { container: Some("mine".to_owned()), ..App::default() };
        let kept = Status {
            session: "1a2b3c4d".to_owned(),
            target: Some("deployment/orders".to_owned()),
            namespace: Some("shop".to_owned()),
            app,
            plane: "netns".to_owned(),
            incoming: Some(IncomingMode::Steal),
            ports: ["80/tcp".to_owned(), "3000:81/tcp".to_owned()].into(),
            events: [told].into(),
            ..Status::default()
        };
        let stranger =
            Status { session: "ffff0000".to_owned(), state: State::Lost, ..Status::default() };
        insta::assert_snapshot!(of(&[&kept, &stranger]), @r"
        SESSION   TARGET                     APP   PLANE  TRAFFIC  PORTS               SINCE  STATE
        1a2b3c4d  deployment/orders -n shop  mine  netns  steal    3000:81/tcp,80/tcp  -      up
          2026-01-01T00:00:00Z a new agent
        ffff0000  -                          -     -      -        -                   -      lost
        ");
    }

    #[test]
    fn an_age_is_as_rough_as_it_is_long() {
        let now: Timestamp = "2026-01-03T00:00:00Z".parse().expect("a time");
        for (since, expected) in [
            ("2026-01-02T23:59:30Z", "30 s"),
            ("2026-01-02T23:30:00Z", "30 min"),
            ("2026-01-02T12:00:00Z", "12 h"),
            ("2025-12-24T00:00:00Z", "10 d"),
            ("2026-01-03T00:00:01Z", "0 s"),
        ] {
            assert_eq!(age(since, now), expected);
        }
    }
}
