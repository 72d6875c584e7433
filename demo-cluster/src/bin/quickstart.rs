//! A whole cluster and a job in one command.

fn main() -> std::process::ExitCode {
    demo_cluster::run(demo_cluster::Program::Quickstart, &demo_cluster::JobRegistry::standard())
}
