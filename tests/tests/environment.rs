//! The target's variables, host name and hosts file.

use anyhow::{Result, ensure};
use mirrord_tests::lab::Lab;
use mirrord_tests::mirrord::Mirrord;
use mirrord_tests::processes;
use mirrord_tests::scene::Scene;
use serde_json::Value;

const VARIABLES: [(&str, &str); 10] = [
    ("DB_URL", "postgres://u:p@db/orders?x=1&y=#2"),
    ("DB_PASSWORD", "s3cr3t"),
    ("MULTI_LINE", "first\nsecond = 'quoted'\n\nlast"),
    ("EMPTY", ""),
    ("SPACES", "  before and after  "),
    ("QUOTES", r#"a "b" 'c' $HOME `d` \e"#),
    ("UNICODE", "grüße ☂"),
    ("DOCKER_HOST", "tcp://192.0.2.1:2375"),
    ("HTTP_PROXY_LIKE", "http://192.0.2.1:1"),
    ("APP_MODE", "production"),
];

fn words() -> Vec<String> {
    VARIABLES.iter().flat_map(|(name, value)| ["-e".into(), format!("{name}={value}")]).collect()
}

fn scene_with_variables(lab: &Lab) -> Result<Scene<'_>> {
    let words = words();
    Scene::open_with(lab, &words.iter().map(String::as_str).collect::<Vec<_>>())
}

#[test]
fn the_app_has_the_targets_variables_to_the_letter() -> Result<()> {
    let Some(lab) = Lab::open("variables")? else {
        return Ok(());
    };
    let scene = scene_with_variables(&lab)?;
    let session = scene.mirrord().probe("app")?;
    let env = session.app().must("env")?["env"].clone();
    for (name, value) in VARIABLES {
        assert_eq!(env[name], value, "{name}");
    }
    Ok(())
}

#[test]
fn what_belongs_to_the_image_or_the_machine_stays_local() -> Result<()> {
    let Some(lab) = Lab::open("variables that stay local")? else {
        return Ok(());
    };
    let far = ["-e", "PATH=/far", "-e", "HOME=/far", "-e", "PWD=/far", "-e", "LD_PRELOAD=/far.so"];
    let scene = Scene::open_with(&lab, &far)?;
    let session = scene.mirrord().probe("app")?;
    let env = session.app().must("env")?["env"].clone();
    for name in ["PATH", "HOME", "PWD", "LD_PRELOAD"] {
        ensure!(!env[name].as_str().unwrap_or("").starts_with("/far"), "{name}: {}", env[name]);
    }
    Ok(())
}

#[test]
fn the_users_own_variables_win() -> Result<()> {
    let Some(lab) = Lab::open("-e wins")? else {
        return Ok(());
    };
    let scene = scene_with_variables(&lab)?;
    let session = scene
        .mirrord()
        .env("DB_PASSWORD", "from the shell")
        .docker(["-e", "APP_MODE=debug", "--env=EMPTY=no", "-e", "DB_PASSWORD"])
        .probe("app")?;
    let env = session.app().must("env")?["env"].clone();
    assert_eq!(env["APP_MODE"], "debug");
    assert_eq!(env["EMPTY"], "no");
    assert_eq!(env["DB_PASSWORD"], "from the shell");
    assert_eq!(env["UNICODE"], "grüße ☂");
    Ok(())
}

#[test]
fn filters_choose_among_the_targets_variables() -> Result<()> {
    let Some(lab) = Lab::open("filters of variables")? else {
        return Ok(());
    };
    let scene = scene_with_variables(&lab)?;
    let names = |options: &[&str]| -> Result<Vec<String>> {
        let mut session = scene.mirrord().with(options.to_vec()).probe("app")?;
        let env = session.app().must("env")?["env"].clone();
        session.end()?;
        let ours = |name: &&str| env.get(*name).is_some_and(Value::is_string);
        Ok(VARIABLES.iter().map(|(name, _)| *name).filter(ours).map(String::from).collect())
    };
    assert_eq!(names(&["-s", "DB_*;EMPTY"])?, ["DB_URL", "DB_PASSWORD", "EMPTY"]);
    assert!(
        !names(&["-x", "DB_*;EMPTY"])?
            .iter()
            .any(|name| name.starts_with("DB_") || name == "EMPTY")
    );
    assert_eq!(names(&["-x", "DB_*"])?.len(), VARIABLES.len() - 2);
    assert_eq!(names(&["--no-env"])?, Vec::<String>::new());
    Ok(())
}

#[test]
fn no_value_is_in_an_argument_list_or_in_what_docker_tells_of_our_containers() -> Result<()> {
    let Some(lab) = Lab::open("secrets")? else {
        return Ok(());
    };
    let secret = lab.name("only-the-app-may-know");
    // From the environment of `docker run`, so that the test itself does not tell it.
    let variable = ["-e".to_owned(), "LAB_SECRET".to_owned()];
    let target = lab.container("target").with(variable).env("LAB_SECRET", &secret).probe()?;
    let session = Mirrord::new(&lab, &target.target()).probe("app")?;
    assert_eq!(session.app().must("env")?["env"]["LAB_SECRET"], secret);
    for role in ["proxy", "agent"] {
        let told = lab.docker.run(&["inspect", &session.part(role)?])?;
        ensure!(!told.contains(&secret), "docker inspect of the {role} tells it");
    }
    for process in processes::all() {
        ensure!(!process.args.iter().any(|word| word.contains(&secret)), "{process:?}");
    }
    Ok(())
}

#[test]
fn the_app_has_the_targets_host_name_and_its_hosts_file() -> Result<()> {
    let Some(lab) = Lab::open("host name")? else {
        return Ok(());
    };
    let scene =
        Scene::open_with(&lab, &["--hostname", "orders-7f9c", "--add-host", "legacy:192.0.2.9"])?;
    let session = scene.mirrord().docker(["--add-host", "mine:192.0.2.8"]).probe("app")?;
    let app = session.app();
    assert_eq!(app.must("hostname")?["hostname"], "orders-7f9c");
    for (name, address) in
        [("orders-7f9c", scene.address.as_str()), ("legacy", "192.0.2.9"), ("mine", "192.0.2.8")]
    {
        assert_eq!(
            app.must(&format!("resolve {name}"))?["addresses"],
            serde_json::json!([address])
        );
    }
    Ok(())
}

#[test]
fn the_users_own_host_entries_and_host_name_win() -> Result<()> {
    let Some(lab) = Lab::open("--add-host wins")? else {
        return Ok(());
    };
    let scene = Scene::open_with(&lab, &["--add-host", "legacy:192.0.2.9"])?;
    let session = scene
        .mirrord()
        .docker(["--add-host", "legacy:192.0.2.77", "--hostname", "laptop"])
        .probe("app")?;
    let app = session.app();
    assert_eq!(app.must("hostname")?["hostname"], "laptop");
    let found = app.must("resolve legacy")?["addresses"].clone();
    assert_eq!(found[0], "192.0.2.77", "{found}");
    Ok(())
}
