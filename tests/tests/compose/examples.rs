//! The project of `compose/examples`, in its three ways.

use std::path::Path;
use std::process::Command;

use anyhow::{Result, ensure};
use mirrord_tests::background::finish;
use mirrord_tests::compose::Project;
use mirrord_tests::lab::Lab;
use mirrord_tests::scene::Scene;
use mirrord_tests::{skip, wait};

/// What the shop tells when all is well; the region is the target's variable.
fn page(region: &str) -> String {
    format!("page of {{\"orders\": [\"bread\", \"tea\"], \"region\": {region}}}")
}

/// What this machine gets from the port that web publishes.
fn published(port: &str) -> Result<String> {
    let words = ["-sS", "-m", "9", &format!("http://127.0.0.1:{port}/")].map(str::to_owned);
    wait::until("the shop's page", || {
        let done = finish(Command::new("curl").args(&words))?;
        Ok(Some(done.stdout).filter(|page| done.code == 0 && !page.is_empty()))
    })
}

#[test]
fn the_shop_runs_here_and_there() -> Result<()> {
    let Some(lab) = Lab::open("the example project")? else { return Ok(()) };
    if lab.docker.run(&["image", "inspect", "mirrord-apps/postgres"]).is_err() {
        return skip::missing(
            "the example project",
            "mirrord-apps/postgres: tests/images postgres",
        );
    }
    let scene = Scene::open_with(&lab, &["-e", "REGION=north"])?;
    let web = lab.container("web").on(&scene.inner).alias("web").probe()?;
    web.probe().must("serve http 0.0.0.0:80 original-web")?;
    scene.client().must("serve http 0.0.0.0:81 client")?;
    let Some(mut project) = Project::new(&lab, "shop", "")? else { return Ok(()) };
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../compose/examples");
    let copied = finish(
        Command::new("cp").args(["-r", "--"]).arg(examples.join(".")).arg(project.path(".")),
    )?;
    ensure!(copied.code == 0, "{copied:?}");
    let port = (20000 + std::process::id() % 10000).to_string();
    project.set("WEB_PORT", &port);
    project.set("ORDERS_TARGET", &scene.target.target());
    project.set("WEB_TARGET", &web.target());
    let asked = |address: &str| {
        let answer = scene.client().must(&format!("ask {address}:80 http /raw"));
        answer.is_ok_and(|answer| answer.to_string().contains("original"))
    };

    project.must(&["--profile", "local", "up", "-d"])?;
    assert_eq!(published(&port)?, page("null"));
    assert!(asked(&scene.address) && asked(&web.address()?), "the targets are left alone");
    project.must(&["--profile", "local", "down"])?;

    project.must(&["--profile", "one", "up", "-d"])?;
    assert_eq!(published(&port)?, page("\"north\""));
    let via = project.fetch("orders-in-cluster", "http://localhost/via/client:81/")?;
    assert!(via.contains(&format!("\"peer\":\"{}:", scene.address)), "{via}");
    wait::until_true("orders to be stolen", || Ok(!asked(&scene.address)))?;
    assert!(asked(&web.address()?), "web is left alone");
    project.must(&["--profile", "one", "down"])?;
    assert!(asked(&scene.address));

    project.must(&["--profile", "all", "up", "-d"])?;
    assert_eq!(published(&port)?, page("\"north\""));
    wait::until_true(
        "both to be stolen",
        || Ok(!asked(&scene.address) && !asked(&web.address()?)),
    )?;
    assert_eq!(project.background.status()?.len(), 2);
    project.must(&["--profile", "all", "down", "-v"])?;
    assert!(asked(&scene.address) && asked(&web.address()?));
    project.until_nothing_is_left()
}

#[test]
fn a_profile_without_its_provider_is_composes_to_refuse() -> Result<()> {
    let Some(lab) = Lab::open("a profile without its provider")? else { return Ok(()) };
    let file = "services:
  cluster:
    profiles: [cluster]
    provider: {type: mirrord, options: {target: container/x}}
  orders:
    image: mirrord-apps/debian
    depends_on: [cluster]
";
    let Some(project) = Project::new(&lab, "without", file)? else { return Ok(()) };
    let done = project.compose(&["up", "-d"])?;
    assert_eq!(done.code, 1, "{done:?}");
    assert!(done.stderr.contains("depends on undefined service \"cluster\""), "{done:?}");
    Ok(())
}
