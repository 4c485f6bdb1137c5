use super::*;

fn parse(line: &str) -> Result<Cli, clap::Error> {
    Cli::try_parse_from(line.split(' '))
}

#[test]
fn the_command_line_is_well_made() {
    Cli::command().debug_assert();
}

#[test]
fn every_word_after_docker_is_dockers() {
    let cli = parse("mirrord -t container/a --steal docker --context x run -t -v /a:/b --steal img -q -- --help")
        .expect("a good line");
    assert!(cli.options.steal && !cli.options.quiet);
    let Command::Docker { words } = cli.command else { panic!() };
    let words: Vec<_> = words.iter().map(|word| word.to_string_lossy()).collect();
    assert_eq!(words.join(" "), "--context x run -t -v /a:/b --steal img -q -- --help");
}

#[test]
fn every_word_behind_the_command_is_its_own() {
    for line in
        ["mirrord -t a exec --steal node -e 1 -t", "mirrord exec -t a --steal -- node -e 1 -t"]
    {
        let cli = parse(line).expect("a good line");
        let Command::Exec { options, words } = cli.command else { panic!() };
        let both = options.over(&cli.options);
        assert!(both.steal && both.target.as_deref() == Some("a"), "{line}");
        assert_eq!(words, ["node", "-e", "1", "-t"], "{line}");
    }
    assert!(parse("mirrord exec -t a").is_err());
}

#[test]
fn docker_run_help_is_dockers() {
    let cli = parse("mirrord docker run --help").expect("no help of ours");
    let Command::Docker { words } = cli.command else { panic!() };
    assert_eq!(words, ["run", "--help"]);
}

#[test]
fn the_peers_spelling_is_the_same_thing() {
    let cli =
        parse("mirrord container -t container/a --steal -- docker run --rm img").expect("good");
    let Command::Container { options, words } = cli.command else { panic!() };
    assert!(options.steal);
    assert_eq!(words, ["docker", "run", "--rm", "img"]);
}

#[test]
fn options_may_stand_on_both_sides_of_the_peers_word() {
    let line = "mirrord -n shop --port 1 --color always -v container -f x.yaml --steal --port 2 \
                -v -- docker run img";
    let cli = parse(line).expect("good");
    let Command::Container { options, .. } = cli.command else { panic!() };
    let both = options.over(&cli.options);
    assert_eq!(both.cluster.target_namespace.as_deref(), Some("shop"));
    assert_eq!(both.config_file, Some(PathBuf::from("x.yaml")));
    assert!(both.steal && both.verbose == 2 && both.color == ColorArg::Always);
    assert_eq!(both.ports, ["1", "2"]);
}

#[test]
fn an_option_of_the_cluster_is_read_and_a_mode_is_one_of_two() {
    let cli = parse("mirrord -t pod/a -n b -a c -i d --agent-mode ephemeral -c docker run img");
    let cluster = cli.expect("good").options.cluster;
    assert_eq!(cluster.agent_mode, Some(AgentMode::Ephemeral));
    assert!(cluster.accept_invalid_certificates && !cluster.all_replicas);
    assert!(parse("mirrord --agent-mode daemon docker run img").is_err());
}

#[test]
fn contradictions_are_refused() {
    assert!(parse("mirrord --steal --mirror docker run img").is_err());
    assert!(parse("mirrord -q -v docker run img").is_err());
}
