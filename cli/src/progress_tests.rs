use insta::assert_snapshot;

use super::*;

const PLAIN: Voice = Voice { form: Form::Plain, verbose: 0, quiet: false, color: false };

fn told(
    voice: Voice,
    now: fn(Instant) -> Duration,
    say: impl Fn(&mut Progress<Vec<u8>>),
) -> String {
    let mut progress = Progress::to(Vec::new(), voice, now, || Some(40));
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
fn what_others_have_written_does_not_steer_the_terminal() {
    let told = told(PLAIN, quick, |progress| {
        progress.failure(&Failure::new("\u{1b}[2Jé").because("a\rb").hint("\u{9b}1m"));
        progress.warning("\u{7}");
        progress.note("\u{1b}]0;x\u{7}");
    });
    assert_snapshot!(told, @r"
    mirrord: error: \u{1b}[2Jé
      caused by: a\rb
    hint: \u{9b}1m
    mirrord: warning: \u{7}
    mirrord: \u{1b}]0;x\u{7}
    ");
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

#[test]
fn a_spinner_fits_into_the_terminal_and_goes() {
    let voice = Voice { form: Form::Terminal, ..PLAIN };
    let told = told(voice, slow, |progress| {
        progress.tick();
        progress.waits_for("something that takes far more words than there are columns");
        progress.tick();
        progress.note("a line");
        progress.step(Step::Target, 3);
        progress.tick();
        progress.ready("ready");
    });
    let frames = told.replace('\n', "|").replace(CLEAR, "\n");
    assert_snapshot!(frames, @r"

    ⠋ mirrord: looking for the target 2 s
    ⠙ mirrord: something that takes far m
    mirrord: a line|
    ⠹ mirrord: starting the sidecar 2 s
    mirrord: ready (2.40 s)|
    ");
}

#[test]
fn a_terminal_gets_one_line_however_slow_the_start_and_whole_words() {
    let voice = Voice { form: Form::Terminal, ..PLAIN };
    let told = told(voice, slow, |progress| {
        progress.step(Step::Target, 3);
        progress.step(Step::Sidecar, 130);
        progress.ready("in the place of container/web, with a copy of its traffic");
        progress.warning("the target's variable A_LONG_NAME is left out: it is not UTF-8");
        progress.failure(&failure().because("a cause that is longer than the line that it is on"));
        progress.raw(true);
        progress.note("a-word-that-is-longer-than-all-of-the-line and another");
    });
    assert_snapshot!(told.replace('\r', "<"), @r#"
    mirrord: in the place of container/web,
             with a copy of its traffic
             (2.40 s)
    mirrord: warning: the target's variable
             A_LONG_NAME is left out: it is
             not UTF-8
    mirrord: error: there is no container
             "wbe"
      caused by: No such container: wbe
      caused by: a cause that is longer than
                 the line that it is on
    hint: did you mean web?
    mirrord: a-word-that-is-longer-than-all-of-the-line<
             and another<
    "#);
}
