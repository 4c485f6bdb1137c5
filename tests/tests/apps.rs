//! Real programs behave in the target's place as they do beside the target.

use anyhow::{Result, ensure};
use mirrord_tests::lab::{DEBIAN, GO, Lab, MUSL};
use mirrord_tests::scene::Scene;
use mirrord_tests::wait;

const PYTHON_SERVER: &str = r"
import http.server, json
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        local = self.connection.getsockname()
        body = json.dumps({'name': 'python', 'peer': '%s:%d' % self.client_address,
                           'local': '%s:%d' % local}).encode()
        self.send_response(200)
        self.send_header('content-length', str(len(body)))
        self.end_headers()
        self.wfile.write(body)
http.server.ThreadingHTTPServer(('', 8000), Handler).serve_forever()
";
const NODE_SERVER: &str = r"
require('http').createServer((request, response) => {
  const { remoteAddress, remotePort, localAddress, localPort } = request.socket;
  const peer = remoteAddress + ':' + remotePort, local = localAddress + ':' + localPort;
  response.end(JSON.stringify({ name: 'node', peer, local }));
}).listen(8000, '0.0.0.0');
";

/// A server of each kind; its image and its words.
fn servers() -> Vec<(&'static str, &'static str, Vec<&'static str>)> {
    vec![
        ("python", DEBIAN, vec!["python3", "-c", PYTHON_SERVER]),
        ("node", DEBIAN, vec!["node", "-e", NODE_SERVER]),
        ("go", GO, vec!["serve", "0.0.0.0:8000", "go"]),
        ("musl", MUSL, vec!["serve", "8000", "musl"]),
    ]
}

#[test]
fn servers_of_every_kind_answer_in_the_targets_place_and_see_its_clients() -> Result<()> {
    let Some(lab) = Lab::open("real servers")? else {
        return Ok(());
    };
    let scene = Scene::open(&lab)?;
    scene.target.probe().must("serve http 0.0.0.0:8000 original")?;
    for (name, image, words) in servers() {
        let session = scene.mirrord().with(["--steal"]).start(name, image, &words)?;
        scene.until_answered_by(name, 8000)?;
        let seen = scene.client().must(&format!("ask {} http /", scene.at(8000)))?;
        assert_eq!(seen["answer"]["peer"], seen["local"], "{name}");
        assert_eq!(seen["answer"]["local"], scene.at(8000).as_str(), "{name}");
        drop(session);
        scene.until_answered_by("original", 8000)?;
    }
    Ok(())
}

#[test]
fn servers_of_every_kind_get_the_copy_while_the_target_answers() -> Result<()> {
    let Some(lab) = Lab::open("real servers, mirrored")? else {
        return Ok(());
    };
    let scene = Scene::open(&lab)?;
    scene.target.probe().must("serve http 0.0.0.0:8000 original")?;
    for (name, image, words) in servers().into_iter().filter(|(name, ..)| *name != "node") {
        let session = scene.mirrord().start(name, image, &words)?;
        let client = scene.client.address()?;
        wait::until(&format!("a copy at {name}"), || {
            assert_eq!(scene.answers(8000)?["name"], "original");
            let told = session.stdout() + &session.stderr();
            Ok(told.contains(&client).then_some(()))
        })?;
    }
    Ok(())
}

#[test]
fn clients_of_every_kind_get_what_they_get_at_the_target() -> Result<()> {
    let Some(lab) = Lab::open("real clients")? else {
        return Ok(());
    };
    let scene = Scene::open(&lab)?;
    scene.client().must("serve http 0.0.0.0:8000 peer")?;
    scene.client().must("serve udp 0.0.0.0:7001 peer")?;
    let python =
        "import urllib.request as r; print(r.urlopen('http://client:8000/').read().decode())";
    let node = "require('http').get('http://client:8000/', r => r.pipe(process.stdout))";
    let nc = "echo hello | nc -u -w 1 client 7001";
    let clients: [(&str, &[&str]); 8] = [
        (DEBIAN, &["curl", "-sS", "http://client:8000/"]),
        (DEBIAN, &["python3", "-c", python]),
        (DEBIAN, &["node", "-e", node]),
        (DEBIAN, &["sh", "-c", nc]),
        (DEBIAN, &["dig", "+short", "client"]),
        (DEBIAN, &["getent", "ahostsv4", "client"]),
        (GO, &["get", "http://client:8000/"]),
        (MUSL, &["get", "client", "8000"]),
    ];
    for (image, words) in clients {
        let there = at_the_target(&scene, image, words)?;
        let done = scene.mirrord().with(["--no-incoming", "-q"]).finish(image, words)?;
        let here = (done.code, without_ports(&done.stdout));
        ensure!(here == there, "{words:?}: {here:?}, at the target {there:?}; {}", done.stderr);
    }
    Ok(())
}

/// The oracle: the same program in the target's own network namespace.
fn at_the_target(scene: &Scene<'_>, image: &str, words: &[&str]) -> Result<(i32, String)> {
    let network = format!("container:{}", scene.target.name);
    let output = scene
        .lab
        .docker
        .command()
        .args(["run", "--rm", "--network", &network, image])
        .args(words)
        .output()?;
    let code = output.status.code().unwrap_or(-1);
    Ok((code, without_ports(&String::from_utf8_lossy(&output.stdout))))
}

/// Ephemeral ports differ from run to run.
fn without_ports(text: &str) -> String {
    let mut kept = String::new();
    let mut pieces = text.split(':');
    kept.push_str(pieces.next().unwrap_or(""));
    for piece in pieces {
        let digits = piece.len() - piece.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        kept.push(':');
        kept.push_str(if digits >= 5 { &piece[digits..] } else { piece });
    }
    kept
}

#[test]
fn only_ephemeral_ports_are_left_out_of_the_comparison() {
    assert_eq!(without_ports("10.0.0.2:45678 to x:8000"), "10.0.0.2: to x:8000");
}
