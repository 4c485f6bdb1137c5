use kube::client::AuthError;
use kube::core::Status;

use super::error::Place;
use crate::failure::Failure;

fn place() -> Place {
    Place { server: "https://10.0.0.1:6443".to_owned(), context: Some("dev".to_owned()) }
}

fn answer(code: u16, message: &str) -> Failure {
    let status = Status::failure(message, "x").with_code(code).boxed();
    place().explain("cannot read the deployment orders", kube::Error::Api(status)).into()
}

#[test]
fn a_missing_permission_is_named() {
    let failure = answer(
        403,
        "deployments.apps \"orders\" is forbidden: User \"dev@example\" cannot get resource \
         \"deployments\" in API group \"apps\" in the namespace \"shop\"",
    );
    assert_eq!(failure.sentence, "cannot read the deployment orders");
    assert_eq!(failure.causes, ["dev@example may not get deployments.apps in namespace shop"]);
    assert!(failure.hint.expect("a hint").contains("docs/rbac.md"));
    let failure = answer(
        403,
        "pods is forbidden: User \"a\" cannot create resource \"pods/exec\" in API group \"\" \
         at the cluster scope",
    );
    assert_eq!(failure.causes, ["a may not create pods/exec in the whole cluster"]);
}

#[test]
fn a_refusal_by_policy_keeps_its_words() {
    let said =
        "pods \"x\" is forbidden: violates PodSecurity \"restricted:latest\": host namespaces";
    assert_eq!(answer(403, said).causes, [said]);
}

#[test]
fn expired_credentials_say_so() {
    let failure = answer(401, "Unauthorized");
    assert_eq!(
        failure.sentence,
        "the API server at https://10.0.0.1:6443 does not accept the credentials (context dev)"
    );
}

#[test]
fn what_a_plugin_printed_is_not_shown() {
    use std::os::unix::process::ExitStatusExt;
    let out = std::process::Output {
        status: std::process::ExitStatus::from_raw(256),
        stdout: b"{\"token\":\"hush\"}".to_vec(),
        stderr: b"not logged in\n".to_vec(),
    };
    let error = AuthError::AuthExecRun {
        cmd: "TOKEN=\"hush\" \"aws\" \"eks\"".to_owned(),
        status: out.status,
        out,
    };
    let failure = Failure::from(place().explain("x", kube::Error::Auth(error)));
    assert!(!format!("{failure:?}").contains("hush"), "{failure:?}");
    assert!(failure.causes[0].ends_with("not logged in"), "{failure:?}");
}
