use super::super::client::{DOCKER, PODMAN};
use super::*;

fn words(line: &str) -> Vec<OsString> {
    line.split(' ').map(OsString::from).collect()
}

fn run(line: &str) -> DockerRun {
    match super::line(&DOCKER, &words(line)) {
        Ok(Line::Run(run)) => *run,
        other => panic!("{line}: {other:?}"),
    }
}

fn error(line: &str) -> ParseError {
    super::line(&DOCKER, &words(line)).expect_err(line)
}

/// The line as `--name=value` words, then a bar, then what is never touched.
fn shape(line: &str) -> String {
    let run = run(line);
    let mut words: Vec<String> =
        run.flags.iter().map(|flag| flag.word().to_string_lossy().into_owned()).collect();
    words.push("|".to_owned());
    words.extend(run.rest.iter().map(|word| word.to_string_lossy().into_owned()));
    words.join(" ")
}

#[test]
fn every_spelling_of_a_value_is_the_same_flag() {
    for line in [
        "run -e A=1 img",
        "run -eA=1 img",
        "run -e=A=1 img",
        "run --env A=1 img",
        "run --env=A=1 img",
    ] {
        assert_eq!(shape(line), "--env=A=1 | img", "{line}");
    }
}

#[test]
fn letters_cluster_as_docker_reads_them() {
    assert_eq!(shape("run -itd img"), "--interactive --tty --detach | img");
    assert_eq!(shape("run -itp8080:80 img"), "--interactive --tty --publish=8080:80 | img");
    assert_eq!(shape("run -itp 8080:80 img"), "--interactive --tty --publish=8080:80 | img");
    assert_eq!(shape("run -iteA=1 img"), "--interactive --tty --env=A=1 | img");
    assert_eq!(shape("run -it=false img"), "--interactive --tty=false | img");
    assert_eq!(shape("run -p= img"), "--publish== | img", "as pflag: a lone = is the value");
}

#[test]
fn a_switch_takes_its_value_only_after_an_equals_sign() {
    assert_eq!(shape("run --rm=false img"), "--rm=false | img");
    assert_eq!(shape("run --rm false img"), "--rm | false img");
    assert!(!run("run --rm --rm=0 img").switch("rm"));
    assert!(run("run --rm=T img").switch("rm"));
}

#[test]
fn the_image_and_all_behind_it_are_left_alone() {
    assert_eq!(shape("run img -p 1:1 --rm -- x"), "| img -p 1:1 --rm -- x");
    assert_eq!(shape("run --rm -- img -it"), "--rm | img -it");
    assert_eq!(shape("run --rm - x"), "--rm | - x");
    assert_eq!(shape("run --name -- img"), "--name=-- | img");
    assert_eq!(
        shape("run -v /a:/b -v/c:/d img sh -c a"),
        "--volume=/a:/b --volume=/c:/d | img sh -c a"
    );
}

#[test]
fn words_that_are_not_utf8_survive() {
    let odd = OsString::from_vec(b"/tmp/\xff:/x".to_vec());
    let line = [OsString::from("run"), "-v".into(), odd.clone(), "img".into(), odd.clone()];
    let Ok(Line::Run(run)) = super::line(&DOCKER, &line) else { panic!() };
    assert_eq!(run.flags[0].value.as_ref(), Some(&odd));
    assert_eq!(run.rest[1], odd);
}

#[test]
fn flags_between_docker_and_run_are_kept() {
    let parsed = run("--context box -H tcp://h:1 -D container run --rm img");
    assert_eq!(parsed.global("context").as_deref(), Some("box"));
    assert_eq!(parsed.global("host").as_deref(), Some("tcp://h:1"));
    assert_eq!(parsed.verb, ["container", "run"]);
    assert_eq!(run("-cbox run img").global("context").as_deref(), Some("box"));
}

#[test]
fn help_and_version_are_dockers() {
    for line in ["run --help", "--help", "--version run img", "run --rm --help img", "-v"] {
        assert!(matches!(super::line(&DOCKER, &words(line)), Ok(Line::Docker)), "{line}");
    }
}

#[test]
fn mistakes_are_told_in_dockers_words() {
    assert_eq!(error("run --prot 1 img").to_string(), "unknown flag: --prot");
    assert_eq!(error("run -iZ img").to_string(), "unknown shorthand flag: 'Z' in -Z");
    assert_eq!(error("run --name").to_string(), "flag needs an argument: --name");
    assert_eq!(error("run -it -p").to_string(), "flag needs an argument: 'p' in -p");
    assert_eq!(error("run --=x img").to_string(), "bad flag syntax: --=x");
    assert_eq!(error("run --rm"), ParseError::NoImage("docker"));
    assert_eq!(error("ps"), ParseError::OtherCommand("docker", "ps".to_owned()));
    assert!(matches!(error("run --rm=maybe img"), ParseError::NotABool { flag: "rm", .. }));
    assert_eq!(super::line(&DOCKER, &[]).expect_err("no words"), ParseError::NoCommand("docker"));
}

#[test]
fn an_unknown_flag_names_the_nearest() {
    let failure = error("run --entrypiont x img").failure(&DOCKER);
    assert_eq!(failure.hint.as_deref(), Some("did you mean --entrypoint? see 'docker run --help'"));
}

#[test]
fn podmans_own_flags_stand_on_both_sides_of_run() {
    let line = "--root /a run --log-level=debug --secret key -c 2 -p80 img -c 3";
    let Ok(Line::Run(run)) = super::line(&PODMAN, &words(line)) else { panic!() };
    let words: Vec<_> = run.flags.iter().map(|flag| flag.word()).collect();
    assert_eq!(words, ["--log-level=debug", "--secret=key", "--cpu-shares=2", "--publish=80"]);
    assert_eq!(run.global("root").as_deref(), Some("/a"));
    assert_eq!(run.global("log-level").as_deref(), Some("debug"));
    let unknown = super::line(&PODMAN, &["run".into(), "--link=x".into(), "img".into()]);
    assert_eq!(unknown.expect_err("not podman's"), ParseError::UnknownFlag("link".to_owned()));
}
