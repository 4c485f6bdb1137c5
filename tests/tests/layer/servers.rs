//! Real servers answer in the target's place as they would at the target.

use std::fs;

use anyhow::{Context, Result, ensure};
use mirrord_tests::exec::Exec;
use mirrord_tests::lab::{DEBIAN, Lab};
use mirrord_tests::mirrord::Session;
use mirrord_tests::scene::Scene;
use mirrord_tests::toolbox::{self, PYTHON, path, source};
use mirrord_tests::wait;
use nix::unistd::{Group, User, chown, geteuid};
use tempfile::TempDir;

use crate::stage::{PORT, answers_as, said};

fn stealing<'lab>(scene: &Scene<'lab>) -> Exec<'lab> {
    scene.exec().with(["--steal"])
}

#[test]
fn nginx_with_its_workers() -> Result<()> {
    let folder = TempDir::new()?;
    let place = folder.path().to_string_lossy();
    let text = fs::read_to_string(source("nginx.conf"))?;
    let text = text.replace("FOLDER", &place).replace("PORT", &PORT.to_string());
    let file = folder.path().join("nginx.conf");
    fs::write(&file, text)?;
    sees_its_clients_quietly("nginx", &["nginx", "-p", &place, "-c", &file.to_string_lossy()])
}

/// A server that does not say where it listens.
fn sees_its_clients_quietly(name: &str, words: &[&str]) -> Result<()> {
    let Some(lab) = Lab::open(name)? else {
        return Ok(());
    };
    if !toolbox::all(name, &words[..1])? {
        return Ok(());
    }
    let scene = Scene::open(&lab)?;
    let session = stealing(&scene).start(words)?;
    answers_as(&scene, &session, name)
}

#[test]
fn pythons_http_server() -> Result<()> {
    let Some(lab) = Lab::open("http.server")? else {
        return Ok(());
    };
    let scene = Scene::open(&lab)?;
    let folder = TempDir::new()?;
    fs::write(folder.path().join("told.json"), r#"{"name":"a file"}"#)?;
    let place = folder.path().to_string_lossy();
    let words = [PYTHON, "-u", "-m", "http.server", "-d", &place, "8000"];
    let session = stealing(&scene).start(&words)?;
    let seen = wait::until("the file", || {
        let seen = scene.client().must(&format!("ask {} http /told.json", scene.at(PORT)))?;
        Ok((seen["answer"]["name"] == "a file").then_some(seen))
    })
    .with_context(|| said(&session))?;
    let (client, _) = seen["local"].as_str().and_then(|at| at.rsplit_once(':')).context("local")?;
    ensure!(session.stderr().contains(client), "its log names the client: {}", session.stderr());
    Ok(())
}

/// The folder of the web app's module, and a program of the virtual environment.
fn web(program: &str) -> (String, String) {
    let module = source("web.py");
    let folder = module.trim_end_matches("/web.py").to_owned();
    (folder, path(&format!("venv/bin/{program}")))
}

#[test]
fn gunicorn_with_its_workers() -> Result<()> {
    let (folder, program) = web("gunicorn");
    let words = ["--chdir", &folder, "-w", "2", "-b", "0.0.0.0:8000", "web:wsgi"];
    sees_its_clients_quietly("gunicorn", &[&[program.as_str()], &words[..]].concat())
}

#[test]
fn uvicorn_that_reloads() -> Result<()> {
    let Some(lab) = Lab::open("uvicorn --reload")? else {
        return Ok(());
    };
    let (_, program) = web("uvicorn");
    if !toolbox::all("uvicorn --reload", &[&program])? {
        return Ok(());
    }
    let scene = Scene::open(&lab)?;
    let folder = TempDir::new()?;
    let module = folder.path().join("web.py");
    let text = fs::read_to_string(source("web.py"))?;
    fs::write(&module, &text)?;
    let place = folder.path().to_string_lossy();
    let words =
        [&program, "--reload", "--app-dir", &place, "--reload-dir", &place, "--host", "0.0.0.0"];
    let words = [&words[..], &["--port", "8000", "web:asgi"]].concat();
    let session = stealing(&scene).start(&words)?;
    answers_as(&scene, &session, "first")?;
    // What is changed before its first look has always been so.
    std::thread::sleep(std::time::Duration::from_secs(1));
    fs::write(&module, text.replace("\"first\"", "\"second\""))?;
    answers_as(&scene, &session, "second")
}

#[test]
fn workers_of_a_node_cluster() -> Result<()> {
    sees_its_clients_quietly("cluster", &["node", &source("server.js"), "cluster", "8000"])
}

#[test]
fn workers_of_a_node_cluster_that_share_the_listener() -> Result<()> {
    sees_its_clients_quietly("shared", &["node", &source("server.js"), "shared", "8000"])
}

#[test]
fn workers_of_a_node_10_cluster() -> Result<()> {
    let program = path("node10");
    sees_its_clients_quietly("cluster", &[&program, &source("server.js"), "cluster", "8000"])
}

#[test]
fn redis() -> Result<()> {
    let Some(lab) = Lab::open("redis")? else {
        return Ok(());
    };
    if !toolbox::all("redis", &["redis-server"])? {
        return Ok(());
    }
    let scene = Scene::open(&lab)?;
    let folder = TempDir::new()?;
    let place = folder.path().to_string_lossy();
    let words = ["redis-server", "--port", "8000", "--save", "", "--protected-mode", "no"];
    let session = stealing(&scene).start(&[&words[..], &["--dir", &place]].concat())?;
    let asked = lab.container("asks").on(&scene.inner);
    let asked = asked.start(DEBIAN, &["sleep", "infinity"])?;
    let client = asked.address()?;
    let line = format!(
        "exec 3<>/dev/tcp/{}/{PORT}; printf 'SET a 1\\r\\nCLIENT LIST\\r\\nQUIT\\r\\n' >&3; cat <&3",
        scene.address
    );
    let told = wait::until("redis", || asked.exec(&["bash", "-c", &line]).map(Some))
        .with_context(|| said(&session))?;
    for part in [format!(" addr={client}:"), format!(" laddr={}", scene.at(PORT)), "+OK".into()] {
        ensure!(told.contains(&part), "{part:?} is not in {told}");
    }
    Ok(())
}

#[test]
fn postgresql() -> Result<()> {
    let Some(lab) = Lab::open("PostgreSQL")? else {
        return Ok(());
    };
    let Some(programs) = postgres_programs() else {
        return mirrord_tests::skip::missing("PostgreSQL", "the package postgresql");
    };
    if !toolbox::all("PostgreSQL", &["psql", "setpriv"])? || !geteuid().is_root() {
        return Ok(());
    }
    let scene = Scene::open(&lab)?;
    let cluster = Cluster::make(&programs)?;
    let session = cluster.start(&scene)?;
    let question =
        "select inet_client_addr(), inet_client_port() > 0, inet_server_addr(), inet_server_port()";
    let told = wait::until("PostgreSQL", || {
        let port = PORT.to_string();
        let host = ["-h", &scene.address, "-p", &port, "-U", "postgres", "-d", "postgres"];
        let output = std::process::Command::new("psql")
            .args(host)
            .args(["-w", "-A", "-t", "-F", " ", "-c", question])
            .output()?;
        let told = String::from_utf8_lossy(&output.stdout).into_owned();
        Ok(output.status.success().then_some(told))
    })
    .with_context(|| said(&session))?;
    // This machine's own address on the target's network.
    let gateway = "{{range .IPAM.Config}}{{.Gateway}}{{end}}";
    let gateway = lab.docker.run(&["network", "inspect", "-f", gateway, &scene.inner])?;
    let gateway = gateway.split('/').next().unwrap_or_default();
    assert_eq!(told.trim(), format!("{gateway} t {} {PORT}", scene.address));
    Ok(())
}

/// The newest version's.
fn postgres_programs() -> Option<String> {
    let versions = fs::read_dir("/usr/lib/postgresql").ok()?;
    let newest = versions.filter_map(|entry| Some(entry.ok()?.path().join("bin"))).max()?;
    Some(newest.to_string_lossy().into_owned())
}

/// A database that belongs to somebody else, since the server refuses root.
struct Cluster {
    folder: TempDir,
    programs: String,
}

/// Runs what follows as that user.
const AS_POSTGRES: [&str; 4] =
    ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"];

impl Cluster {
    fn make(programs: &str) -> Result<Self> {
        let folder = TempDir::new()?;
        let user = User::from_name("postgres")?.context("the user postgres")?;
        let group = Group::from_name("postgres")?.context("the group postgres")?;
        chown(folder.path(), Some(user.uid), Some(group.gid))?;
        let cluster = Self { folder, programs: programs.to_owned() };
        let output = std::process::Command::new(AS_POSTGRES[0])
            .args(&AS_POSTGRES[1..])
            .args([&format!("{programs}/initdb"), "-D", &cluster.data(), "-A", "trust", "-N"])
            .output()?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let rules = fs::OpenOptions::new()
            .append(true)
            .open(format!("{}/pg_hba.conf", cluster.data()))
            .map(|mut file| std::io::Write::write_all(&mut file, b"host all all all trust\n"))?;
        rules?;
        Ok(cluster)
    }

    fn data(&self) -> String {
        self.folder.path().join("data").to_string_lossy().into_owned()
    }

    fn start<'lab>(&self, scene: &Scene<'lab>) -> Result<Session<'lab>> {
        let program = format!("{}/postgres", self.programs);
        let (data, port) = (self.data(), PORT.to_string());
        let own = [program.as_str(), "-D", &data, "-p", &port, "-h", "*", "-F", "-k", ""];
        stealing(scene).start(&[&AS_POSTGRES[..], &own[..]].concat())
    }
}
