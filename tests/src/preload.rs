//! What is loaded into an app beside the preload library.

use anyhow::{Result, ensure};

use crate::lab::{DEBIAN, Lab};
use crate::scene::Scene;
use crate::toolbox;

/// What an image, a file and a flag preload is kept, each in the place of the one before.
///
/// # Errors
/// If something else is.
pub fn is_kept(lab: &Lab) -> Result<()> {
    let scene = Scene::open(lab)?;
    let image = lab.name("preloads");
    let own = toolbox::path("mark.so");
    let volume = format!("{own}:/own/mark.so:ro");
    lab.docker.run(&["create", "--name", &lab.name("base"), DEBIAN])?;
    let change = "ENV LD_PRELOAD=/own/mark.so";
    lab.docker.run(&["commit", "--change", change, &lab.name("base"), &image])?;
    lab.docker.run(&["rm", "-f", &lab.name("base")])?;
    let run = |flags: &[&str]| {
        let all = [&["-v", &volume], flags].concat();
        let run = scene.mirrord().with(["--plane", "layer"]).docker(all);
        run.finish(&image, &["sh", "-c", "echo \"$LD_PRELOAD\""])
    };
    let ours = "/opt/mirrord/libmirrord_layer.so";
    let by_image = run(&[]);
    let by_flag = run(&["-e", "LD_PRELOAD=/own/../own/mark.so"]);
    let by_nobody = run(&["-e", "LD_PRELOAD="]);
    lab.docker.run(&["rmi", "-f", &image])?;
    let (by_image, by_flag, by_nobody) = (by_image?, by_flag?, by_nobody?);
    ensure!(by_image.stdout.trim() == format!("{ours}:/own/mark.so"), "{by_image:?}");
    ensure!(by_image.stderr.contains("marked"), "{by_image:?}");
    ensure!(by_flag.stdout.trim() == format!("{ours}:/own/../own/mark.so"), "{by_flag:?}");
    ensure!(by_nobody.stdout.trim() == ours, "{by_nobody:?}");
    Ok(())
}
