//! Projects of many shapes, each without mirrord first and then with it in front: what a service of
//! the project asks of another one is answered as before, and the target's client by the service.

use anyhow::{Context, Result, ensure};
use mirrord_tests::compose::Project;
use mirrord_tests::lab::Lab;
use mirrord_tests::scene::Scene;
use mirrord_tests::toolbox;

/// A project: its name, its other files, its service that takes a target's place, who asks whom, and
/// the compose file, in which `serves NAME PORT` stands for a service that answers.
struct Shape {
    name: &'static str,
    files: &'static [(&'static str, &'static str)],
    service: &'static str,
    asks: &'static [(&'static str, &'static str)],
    text: &'static str,
}

const SHAPES: &[Shape] = &[
    Shape {
        name: "a web service and its database",
        files: &[],
        service: "web",
        asks: &[("web", "http://db:5432/"), ("db", "http://web/")],
        text: "services:
  web:
    serves web 80
    ports: ['127.0.0.1::80']
    depends_on: {db: {condition: service_healthy}}
  db:
    serves db 5432
    volumes: ['rows:/var/lib/rows']
    healthcheck: {test: [CMD, curl, -sf, 'http://localhost:5432'], interval: 1s, retries: 30}
volumes: {rows: {}}
",
    },
    Shape {
        name: "a proxy in front, on two networks",
        files: &[],
        service: "backend",
        asks: &[("proxy", "http://backend:8000/"), ("backend", "http://proxy/")],
        text: "services:
  proxy:
    serves proxy 80
    networks: [front, back]
    depends_on: [backend]
  backend:
    serves backend 8000
    networks: {back: {aliases: [api]}}
    expose: ['8000']
networks: {front: {}, back: {internal: true}}
",
    },
    Shape {
        name: "three tiers",
        files: &[],
        service: "server",
        asks: &[("frontend", "http://server:3000/"), ("server", "http://mongo:27017/")],
        text: "services:
  frontend:
    serves frontend 3001
    depends_on: [server]
    networks: [react]
  server:
    serves server 3000
    restart: always
    stop_grace_period: 1s
    depends_on: [mongo]
    networks: [react, express]
  mongo:
    serves mongo 27017
    networks: [express]
networks:
  react: {name: '${COMPOSE_PROJECT_NAME}_React'}
  express: {}
",
    },
    Shape {
        name: "a blog with secrets, configs and an environment file",
        files: &[("password.txt", "secret"), ("blog.env", "WORDPRESS_DB_USER=wordpress\n")],
        service: "blog",
        asks: &[("blog", "http://db:3306/"), ("blog", "file:///run/secrets/password")],
        text: "services:
  blog:
    serves blog 80
    env_file: [blog.env]
    secrets: [password]
    configs: [{source: site, target: /etc/site.conf}]
    labels: {kind: blog}
    depends_on: [db]
  db:
    serves db 3306
    environment: {MYSQL_DATABASE: wordpress}
secrets: {password: {file: password.txt}}
configs: {site: {content: 'title = blog'}}
",
    },
    Shape {
        name: "a worker that waits for a job",
        files: &[],
        service: "worker",
        asks: &[("worker", "http://queue:6379/")],
        text: "services:
  migrate:
    image: mirrord-apps/debian
    command: 'true'
  queue:
    serves queue 6379
  worker:
    serves worker 9000
    depends_on:
      migrate: {condition: service_completed_successfully}
      queue: {condition: service_started, restart: true}
",
    },
    Shape {
        name: "a sidecar of the user's own",
        files: &[],
        service: "app",
        asks: &[
            ("debug", "http://localhost/"),
            ("peer", "http://app/"),
            ("app", "http://peer:81/"),
        ],
        text: "services:
  app:
    serves app 80
    hostname: box
    extra_hosts: ['nowhere.test:192.0.2.9']
    sysctls: {net.core.somaxconn: 1024}
  debug:
    image: mirrord-apps/debian
    init: true
    command: sleep infinity
    network_mode: service:app
  peer:
    serves peer 81
",
    },
    Shape {
        name: "an image that is built, and extensions",
        files: &[("box/Dockerfile", "FROM mirrord-apps/debian\nENV FROM_IMAGE=yes\n")],
        service: "built",
        asks: &[("peer", "http://built/"), ("built", "http://peer:81/")],
        text:
            "x-common: &common {init: true, logging: {driver: json-file, options: {max-size: 1m}}}
services:
  built:
    serves built 80
    <<: *common
    build: ./box
    image: '${COMPOSE_PROJECT_NAME}-built'
  peer:
    serves peer 81
",
    },
    Shape {
        name: "read only, with limits and a user",
        files: &[],
        service: "small",
        asks: &[("peer", "http://small:8080/"), ("small", "http://peer:81/")],
        text: "services:
  small:
    serves small 8080
    read_only: true
    user: '1000:1000'
    cap_drop: [ALL]
    tmpfs: [/tmp]
    ulimits: {nofile: 1024}
    deploy: {resources: {limits: {memory: 256m, pids: 100}}}
  peer:
    serves peer 81
",
    },
    Shape {
        name: "addresses and names of its own",
        files: &[],
        service: "fixed",
        asks: &[
            ("peer", "http://fixed/"),
            ("peer", "http://known-as/"),
            ("fixed", "http://peer:81/"),
        ],
        text: "services:
  fixed:
    serves fixed 80
    container_name: '${COMPOSE_PROJECT_NAME}-own-name'
    networks: {lan: {ipv4_address: '${SUBNET}.77', aliases: [known-as], priority: 100}}
  peer:
    serves peer 81
    networks: [lan]
networks: {lan: {ipam: {config: [{subnet: '${SUBNET}.0/24'}]}}}
",
    },
    Shape {
        name: "profiles, and a service that is not asked for",
        files: &[],
        service: "metrics",
        asks: &[("dashboard", "http://metrics:9090/"), ("metrics", "http://dashboard:3000/")],
        text: "services:
  metrics:
    serves metrics 9090
    command: /probe serve http 0.0.0.0:9090 metrics
  dashboard:
    serves dashboard 3000
  extra:
    serves extra 1
    profiles: [never]
",
    },
];

/// The compose file, in full.
fn file(shape: &Shape) -> String {
    let probe = toolbox::path("probe");
    let mut text = String::new();
    for line in shape.text.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            ["serves", name, port] => {
                let own_image = line.starts_with("    ") && *name == "built";
                let command = format!("/probe serve http 0.0.0.0:{port} {name}");
                if !own_image {
                    text += "    image: mirrord-apps/debian\n";
                }
                if !shape.text.contains(&format!("    command: {command}")) {
                    text += &format!("    command: {command}\n");
                }
                if !own_image {
                    text += "    init: true\n";
                }
                if *name != "db" {
                    text += &format!("    volumes: ['{probe}:/probe:ro']\n");
                }
            }
            _ if line.trim_start().starts_with("volumes: ['rows:") => {
                text += &format!("    volumes: ['rows:/var/lib/rows', '{probe}:/probe:ro']\n");
            }
            _ => text += &format!("{line}\n"),
        }
    }
    // The database of the blog has no volume of its own.
    match shape.text.contains("rows:") {
        true => text,
        false => text.replace(
            "db\n    init: true\n",
            &format!("db\n    init: true\n    volumes: ['{probe}:/probe:ro']\n"),
        ),
    }
}

/// What is answered, but for addresses and ports.
fn answers(project: &Project, shape: &Shape) -> Result<Vec<String>> {
    let ask = |(service, address): &(&str, &str)| {
        let answer = project.fetch(service, address).with_context(|| shape.name)?;
        let name = answer.split("\"name\":\"").nth(1).and_then(|rest| rest.split('"').next());
        Ok(name.map_or(answer.clone(), str::to_owned))
    };
    shape.asks.iter().map(ask).collect()
}

fn compare(lab: &Lab, scene: &Scene, at: usize, shape: &Shape) -> Result<()> {
    let Some(mut project) = Project::new(lab, &format!("shape{at}"), &file(shape))? else {
        return Ok(());
    };
    project.set("SUBNET", &format!("10.{}.{at}", 64 + std::process::id() % 128));
    for (name, text) in shape.files {
        project.write(name, text)?;
    }
    let up = &["up", "-d", "--quiet-build"];
    project.must(up).with_context(|| format!("{}, without mirrord", shape.name))?;
    let expected = answers(&project, shape)?;
    project.must(&["down", "-v", "-t", "1"])?;
    let target = scene.target.target();
    let options = ["-t", &target, "--steal", "--service", shape.service];
    let done = project.mirrord(&options, up)?;
    ensure!(done.code == 0, "{}: {done:?}", shape.name);
    assert_eq!(answers(&project, shape)?, expected, "{}", shape.name);
    let port = shape.text.split(&format!("serves {} ", shape.service)).nth(1);
    let port = port.and_then(|rest| rest.lines().next()?.parse().ok()).context("a port")?;
    scene.until_answered_by(shape.service, port).with_context(|| shape.name)?;
    let done = project.mirrord(&options, &["down", "-v", "-t", "1", "--rmi", "local"])?;
    ensure!(done.code == 0, "{}: {done:?}", shape.name);
    project.until_nothing_is_left().with_context(|| shape.name)
}

#[test]
fn every_shape_works_as_it_does_without() -> Result<()> {
    let Some(lab) = Lab::open("projects of many shapes")? else { return Ok(()) };
    let scene = Scene::open(&lab)?;
    for (at, shape) in SHAPES.iter().enumerate() {
        compare(&lab, &scene, at, shape)?;
    }
    Ok(())
}
