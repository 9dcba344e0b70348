//! The operator's rights are not everybody's: whoever writes a ShardJob's spec must be allowed to create pods in its
//! namespace, and to use the service account that it names. Kubernetes' own roles `edit` and `view` cover ShardJobs. Nobody
//! else is held up: not who scales or labels, not the operator, not the garbage collector.

use std::time::{Duration, Instant};

use hyperflow_e2e::{
    Result,
    cluster::Place,
    command::{refused, run, run_with},
    ensure,
};
use serde_json::{Value, json};

/// May write ShardJobs, and nothing else.
const AUTHOR: &str = "e2e-author";
/// May create pods as well.
const RUNNER: &str = "e2e-runner";
/// May also use the service account `etl`.
const USER: &str = "e2e-user";
/// May scale ShardJobs, and nothing else.
const SCALER: &str = "e2e-scaler";
/// Has the role `edit`.
const EDITOR: &str = "e2e-editor";
/// Has the role `view`.
const VIEWER: &str = "e2e-viewer";

const SOON: Duration = Duration::from_secs(30);

pub async fn keeps(place: &Place) -> Result {
    let people = People { place };
    people.arrive().await?;
    authors_need_the_right_to_create_pods(&people).await?;
    accounts_need_the_right_to_use_them(&people).await?;
    own_roles_cover_shardjobs(&people).await?;
    others_are_not_held_up(&people).await?;
    operator_and_garbage_collector_work(&people).await
}

async fn authors_need_the_right_to_create_pods(people: &People<'_>) -> Result {
    let remedy = format!("'{AUTHOR}' must be allowed to create pods in namespace");
    let said = refused("a job by who may not create pods", people.apply(AUTHOR, &super::numbers("plain")).await)?;
    ensure(said.contains(&remedy) && said.contains("verb create, resource pods"), || said)?;
    people.apply(RUNNER, &super::numbers("plain")).await?;
    let said = refused("another's spec", people.patch(AUTHOR, json!({"spec": {"parallelism": 3}})).await)?;
    ensure(said.contains(&remedy), || said)
}

async fn accounts_need_the_right_to_use_them(people: &People<'_>) -> Result {
    let words = |user: &str, account: &str| {
        format!(
            "spec.workers.serviceAccountName: '{user}' must be allowed to use the service account '{account}' (verb use"
        )
    };
    let as_etl = with_account("as-etl", &json!("etl"));
    let said = refused("an account that one may not use", people.apply(RUNNER, &as_etl).await)?;
    ensure(said.contains(&words(RUNNER, "etl")), || said)?;
    people.apply(USER, &as_etl).await?;
    let said = refused("another account", people.apply(USER, &with_account("as-other", &json!("other"))).await)?;
    ensure(said.contains(&words(USER, "other")), || said)?;
    // Named or not: whoever may create a pod gets this one.
    people.apply(RUNNER, &with_account("as-default", &json!("default"))).await?;
    people.apply(RUNNER, &with_account("as-null", &Value::Null)).await?;
    let swap = json!({"spec": {"workers": {"serviceAccountName": "etl"}}});
    let said = refused("another account later", people.patch(RUNNER, swap).await)?;
    ensure(said.contains(&words(RUNNER, "etl")), || said)
}

async fn own_roles_cover_shardjobs(people: &People<'_>) -> Result {
    people.apply(EDITOR, &with_account("edited", &json!("etl"))).await?;
    people.kubectl(EDITOR, &["scale", "shardjob/edited", "--replicas=2"]).await?;
    people.kubectl(VIEWER, &["get", "shardjob", "edited"]).await?;
    people.kubectl(VIEWER, &["get", "shardjob", "edited", "--subresource=status"]).await?;
    for (user, right) in [
        (VIEWER, "create shardjobs"),
        (VIEWER, "patch shardjobs"),
        (VIEWER, "patch shardjobs --subresource=scale"),
        (EDITOR, "patch shardjobs --subresource=status"),
        (EDITOR, "update shardjobs --subresource=finalizers"),
    ] {
        ensure(!people.may(user, right).await, || format!("{user} may {right}"))?;
    }
    Ok(())
}

async fn others_are_not_held_up(people: &People<'_>) -> Result {
    people.kubectl(SCALER, &["scale", "shardjob/plain", "--replicas=2"]).await?;
    people.kubectl(AUTHOR, &["label", "shardjob/plain", "team=a"]).await?;
    Ok(())
}

/// The operator puts its finalizer on, writes status and starts pods under the named account, which it may not use itself;
/// the garbage collector takes its own finalizer off when dependants go first.
async fn operator_and_garbage_collector_work(people: &People<'_>) -> Result {
    let place = people.place;
    place.write_input("input", 1 << 20, 3)?;
    let mut manifest = super::copy("copied", "256Ki", "1G", 1, 2);
    manifest["spec"]["workers"]["serviceAccountName"] = json!("etl");
    people.apply(USER, &manifest).await?;
    people.kubectl(VIEWER, &["wait", "--for=condition=Complete", "--timeout=60s", "shardjob/copied"]).await?;
    let gone = ["delete", "shardjob/copied", "shardjob/as-etl", "--cascade=foreground", "--timeout=30s"];
    people.kubectl(RUNNER, &gone).await?;
    Ok(())
}

fn with_account(name: &str, account: &Value) -> Value {
    let mut job = super::numbers(name);
    job["spec"]["workers"] = json!({"serviceAccountName": account});
    job
}

struct People<'a> {
    place: &'a Place,
}

impl People<'_> {
    async fn kubectl(&self, user: &str, args: &[&str]) -> Result<String> {
        let who = ["--as", user, "--namespace", &self.place.namespace];
        run("kubectl", &[&who, args].concat()).await
    }

    async fn apply(&self, user: &str, job: &Value) -> Result<String> {
        let args = ["--as", user, "--namespace", &self.place.namespace, "apply", "--filename", "-"];
        run_with("kubectl", &args, &job.to_string()).await
    }

    /// Changes the job `plain`.
    async fn patch(&self, user: &str, patch: Value) -> Result<String> {
        self.kubectl(user, &["patch", "shardjob/plain", "--type=merge", "--patch", &patch.to_string()]).await
    }

    /// Whether a user has a right, as `kubectl auth can-i` has it.
    async fn may(&self, user: &str, right: &str) -> bool {
        let args: Vec<&str> = ["auth", "can-i"].into_iter().chain(right.split(' ')).collect();
        self.kubectl(user, &args).await.is_ok()
    }

    /// Gives everybody the rights above, and waits until the API server knows.
    async fn arrive(&self) -> Result {
        let jobs = json!({
            "apiGroups": ["hyperflow.dev"], "resources": ["shardjobs"],
            "verbs": ["create", "delete", "get", "list", "patch", "update", "watch"]
        });
        let pods = json!({"apiGroups": [""], "resources": ["pods"], "verbs": ["create"]});
        let account = json!({
            "apiGroups": [""], "resources": ["serviceaccounts"], "resourceNames": ["etl"], "verbs": ["use"]
        });
        let scale = json!({
            "apiGroups": ["hyperflow.dev"], "resources": ["shardjobs", "shardjobs/scale"], "verbs": ["get"]
        });
        let rescale =
            json!({"apiGroups": ["hyperflow.dev"], "resources": ["shardjobs/scale"], "verbs": ["patch", "update"]});
        let mut items = vec![json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "etl"}})];
        for (user, rules) in [
            (AUTHOR, vec![&jobs]),
            (RUNNER, vec![&jobs, &pods]),
            (USER, vec![&jobs, &pods, &account]),
            (SCALER, vec![&scale, &rescale]),
        ] {
            items.push(json!({
                "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": user}, "rules": rules
            }));
            items.push(binding(user, "Role", user));
        }
        items.push(binding(EDITOR, "ClusterRole", "edit"));
        items.push(binding(VIEWER, "ClusterRole", "view"));
        let all = json!({"apiVersion": "v1", "kind": "List", "items": items}).to_string();
        run_with("kubectl", &["apply", "--namespace", &self.place.namespace, "--filename", "-"], &all).await?;
        let start = Instant::now();
        for (user, right) in [
            (AUTHOR, "create shardjobs"),
            (RUNNER, "create pods"),
            (USER, "use serviceaccounts/etl"),
            (SCALER, "patch shardjobs --subresource=scale"),
            (EDITOR, "create shardjobs"),
            (EDITOR, "patch shardjobs --subresource=scale"),
            (VIEWER, "get shardjobs --subresource=status"),
        ] {
            while !self.may(user, right).await {
                ensure(start.elapsed() < SOON, || format!("{user} may not {right}"))?;
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
        Ok(())
    }
}

fn binding(user: &str, kind: &str, role: &str) -> Value {
    let group = "rbac.authorization.k8s.io";
    json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": user},
        "roleRef": {"apiGroup": group, "kind": kind, "name": role},
        "subjects": [{"apiGroup": group, "kind": "User", "name": user}]
    })
}
