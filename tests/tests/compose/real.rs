//! Projects of real servers, each without mirrord first and then with it in front.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use mirrord_tests::compose::Project;
use mirrord_tests::lab::Lab;
use mirrord_tests::scene::Scene;
use mirrord_tests::{skip, toolbox, wait};

const FLASK: &str = "from flask import Flask, request
app = Flask('orders')
@app.get('/')
def orders():
    return f'flask, asked by way of {request.headers.get(\"X-Forwarded-For\", \"nobody\")}'
";
const NGINX: &str = "daemon off;
events {}
http {
  access_log off;
  server {
    listen 80;
    location / {
      proxy_pass http://orders:5000;
      proxy_set_header X-Forwarded-For nginx;
    }
  }
}
";

/// The project, if the images are there.
fn project<'lab>(lab: &'lab Lab, name: &str, text: &str) -> Result<Option<Project<'lab>>> {
    for image in ["mirrord-apps/web", "mirrord-apps/postgres"] {
        if lab.docker.run(&["image", "inspect", image]).is_err() {
            skip::missing(name, &format!("{image}: tests/images web postgres"))?;
            return Ok(None);
        }
    }
    Project::new(lab, name, text)
}

/// Asks without mirrord and with it; and the target's client is answered by the service then.
fn the_same(
    scene: &Scene<'_>,
    project: &Project<'_>,
    service: &str,
    port: u16,
    asks: &[(&str, &str, &str)],
) -> Result<()> {
    let check = || -> Result<()> {
        for (who, address, expected) in asks {
            let found = project.fetch(who, address)?;
            ensure!(found.contains(expected), "{who} {address}: {found}");
        }
        Ok(())
    };
    project.must(&["up", "-d"])?;
    check().context("without mirrord")?;
    project.must(&["down", "-v", "-t", "1"])?;
    let options = ["-t", &scene.target.target(), "--steal", "--service", service];
    let up = project.mirrord(&options, &["up", "-d"])?;
    ensure!(up.code == 0, "{up:?}");
    check().context("with mirrord")?;
    wait::until_true("the service to answer the target's client", || {
        let asked = scene.client().must(&format!("ask {} http /", scene.at(port)))?;
        Ok(asks.iter().any(|(.., expected)| {
            let head = expected.split(',').next().unwrap_or_default();
            asked.to_string().contains(head)
        }))
    })?;
    let down = project.mirrord(&options, &["down", "-v", "-t", "1"])?;
    ensure!(down.code == 0, "{down:?}");
    project.until_nothing_is_left()
}

#[test]
fn nginx_before_flask() -> Result<()> {
    let Some(lab) = Lab::open("nginx and Flask")? else { return Ok(()) };
    let scene = Scene::open(&lab)?;
    let text = "services:
  web:
    image: mirrord-apps/web
    init: true
    volumes: ['./nginx.conf:/etc/nginx/nginx.conf:ro']
    command: nginx
    depends_on: {orders: {condition: service_healthy}}
  orders:
    image: mirrord-apps/web
    init: true
    volumes: ['./orders.py:/orders.py:ro']
    command: flask --app /orders.py run --host 0.0.0.0 --port 5000
    healthcheck: {test: [CMD, curl, -sf, 'http://localhost:5000'], interval: 1s, retries: 60}
";
    let Some(project) = project(&lab, "nginx", text)? else { return Ok(()) };
    project.write("orders.py", FLASK)?;
    project.write("nginx.conf", NGINX)?;
    let asks = [
        ("web", "http://localhost/", "flask, asked by way of nginx"),
        ("web", "http://orders:5000/", "flask, asked by way of nobody"),
    ];
    the_same(&scene, &project, "orders", 5000, &asks)
}

#[test]
fn java_and_its_database() -> Result<()> {
    let test = "Java and PostgreSQL";
    let Some(lab) = Lab::open(test)? else { return Ok(()) };
    if !toolbox::all(test, &["Shop.class"])? {
        return Ok(());
    }
    let scene = Scene::open(&lab)?;
    let database = Path::new(env!("CARGO_MANIFEST_DIR")).join("../compose/examples/app");
    let text = format!(
        "services:
  shop:
    image: mirrord-apps/web
    init: true
    volumes: ['{folder}:/app:ro']
    command: java -cp /app Shop
    depends_on: {{db: {{condition: service_healthy}}}}
  db:
    image: mirrord-apps/postgres
    init: true
    user: postgres
    volumes: ['{database}:/app:ro', 'rows:/var/lib/postgresql']
    command: sh /app/database.sh
    healthcheck:
      test: [CMD, psql, -h, localhost, -qAtc, 'select count(*) from orders', shop]
      interval: 1s
      retries: 60
volumes: {{rows: {{}}}}
",
        folder = toolbox::folder().display(),
        database = database.canonicalize()?.display()
    );
    let Some(project) = project(&lab, "java", &text)? else { return Ok(()) };
    let asks = [("db", "http://shop:8080/", "java, and the database says")];
    the_same(&scene, &project, "shop", 8080, &asks)
}
