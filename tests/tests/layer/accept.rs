//! Every way to accept a connection names the real client.

use anyhow::{Result, ensure};
use mirrord_tests::lab::Lab;
use mirrord_tests::scene::Scene;
use mirrord_tests::toolbox::{self, PYTHON, path, source};

use crate::stage::sees_its_clients;

/// The C program's servers.
fn in_c(way: &str) -> Result<()> {
    sees_its_clients(way, &[&path("app"), "serve", way, "8000"])
}

#[test]
fn accept_of_libc() -> Result<()> {
    in_c("accept")
}

#[test]
fn accept4_of_libc() -> Result<()> {
    in_c("accept4")
}

#[test]
fn accept4_by_the_syscall_function() -> Result<()> {
    in_c("syscall")
}

#[test]
fn accept_by_the_syscall_function() -> Result<()> {
    in_c("syscall-accept")
}

#[test]
fn accept_without_an_address_and_getpeername() -> Result<()> {
    in_c("getpeername")
}

#[test]
fn accept_after_poll_without_blocking() -> Result<()> {
    in_c("poll")
}

#[test]
fn accept_after_select() -> Result<()> {
    in_c("select")
}

#[test]
fn accept_after_epoll() -> Result<()> {
    in_c("epoll")
}

#[test]
fn accept_where_io_uring_was_wanted() -> Result<()> {
    in_c("uring")
}

#[test]
fn accept_on_a_descriptor_that_was_passed() -> Result<()> {
    in_c("passed")
}

#[test]
fn accept_under_a_seccomp_filter_that_refuses() -> Result<()> {
    in_c("refusing")
}

#[test]
fn accept_under_a_seccomp_filter_that_kills() -> Result<()> {
    in_c("killing")
}

#[test]
fn accept_in_children_that_inherit_the_listener() -> Result<()> {
    sees_its_clients("forked", &[&path("app"), "serve", "forked", "8000", "4"])
}

#[test]
fn accept_of_musl() -> Result<()> {
    sees_its_clients("accept4", &[&path("app-musl"), "serve", "accept4", "8000"])
}

#[test]
fn accept_by_the_syscall_function_of_musl() -> Result<()> {
    sees_its_clients("syscall", &[&path("app-musl"), "serve", "syscall", "8000"])
}

#[test]
fn uv_accept4_of_node_10() -> Result<()> {
    sees_its_clients("node", &[&path("node10"), &source("server.js"), "node", "8000"])
}

#[test]
fn accept_of_the_machines_node() -> Result<()> {
    sees_its_clients("node", &["node", &source("server.js"), "node", "8000"])
}

#[test]
fn accept_of_go_with_cgo() -> Result<()> {
    sees_its_clients("go", &[&path("go-cgo"), "serve", "0.0.0.0:8000", "go"])
}

#[test]
fn accept_of_static_go() -> Result<()> {
    sees_its_clients("go", &[&path("go-static"), "serve", "0.0.0.0:8000", "go"])
}

#[test]
fn accept_of_static_go_without_symbols() -> Result<()> {
    sees_its_clients("go", &[&path("go-stripped"), "serve", "0.0.0.0:8000", "go"])
}

#[test]
fn accept_of_java_with_a_selector() -> Result<()> {
    in_java("nio", "Nio")
}

#[test]
fn accept_of_the_jdks_http_server() -> Result<()> {
    in_java("httpserver", "Http")
}

fn in_java(name: &str, class: &str) -> Result<()> {
    if !toolbox::all(name, &["java", &format!("{class}.class")])? {
        return Ok(());
    }
    let classes = toolbox::folder();
    let classes = classes.to_string_lossy();
    sees_its_clients(name, &["java", "-Xshare:auto", "-cp", &classes, class, "8000"])
}

#[test]
fn accept_of_python() -> Result<()> {
    sees_its_clients("blocking", &[PYTHON, &source("server.py"), "blocking", "8000"])
}

#[test]
fn accept_of_pythons_asyncio() -> Result<()> {
    sees_its_clients("asyncio", &[PYTHON, &source("server.py"), "asyncio", "8000"])
}

#[test]
fn accept_of_rusts_standard_library() -> Result<()> {
    sees_its_clients("std", &[&path("probe"), "serve", "http", "0.0.0.0:8000", "std"])
}

#[test]
fn accept_of_tokio() -> Result<()> {
    sees_its_clients("tokio", &[&path("probe"), "serve", "tokio", "0.0.0.0:8000", "tokio"])
}

#[test]
fn a_static_c_program_is_refused_by_name_before_it_starts() -> Result<()> {
    let Some(lab) = Lab::open("static C")? else {
        return Ok(());
    };
    let scene = Scene::open(&lab)?;
    let program = path("app-static");
    let done = scene.exec().with(["--steal"]).finish(&[&program, "serve", "accept", "8000"])?;
    ensure!(done.code != 0 && done.stdout.is_empty(), "{done:?}");
    for word in ["app-static", "static", "docker run"] {
        ensure!(done.stderr.contains(word), "{word:?} is not said: {}", done.stderr);
    }
    Ok(())
}

#[test]
fn a_static_c_program_is_refused_when_a_child_starts_it() -> Result<()> {
    let Some(lab) = Lab::open("static C as a child")? else {
        return Ok(());
    };
    let scene = Scene::open(&lab)?;
    let line = format!("{} serve accept 8000; echo then $?", path("app-static"));
    let done = scene.exec().finish(&["sh", "-c", &line])?;
    ensure!(done.stdout == "then 126\n", "{done:?}");
    ensure!(done.stderr.contains("app-static"), "it is named: {done:?}");
    Ok(())
}

#[test]
fn a_static_go_program_is_rewritten_when_a_child_starts_it() -> Result<()> {
    let line = format!("true; {} serve 0.0.0.0:8000 go", path("go-static"));
    sees_its_clients("go", &["sh", "-c", &line])
}
