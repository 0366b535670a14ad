# Run these first: they make the CA and the credentials, which Terraform never sees.
#   gcloud services enable artifactregistry.googleapis.com cloudresourcemanager.googleapis.com compute.googleapis.com iam.googleapis.com logging.googleapis.com monitoring.googleapis.com secretmanager.googleapis.com --project=project-one --quiet
#   daskpki --store=gsm://project-one --cluster=lab init-ca --with=scheduler,worker

terraform {
  required_providers {
    google = {
      source  = "hashicorp/google"
      version = ">= 6.0"
    }
  }
}

locals {
  user_data_vm_europe_west1_b_daskpki_lab_node = <<-EOT
#cloud-config
write_files:
- path: /etc/systemd/system/daskpki.service
  permissions: "0644"
  owner: root
  content: |
    [Unit]
    Description=Dask node of cluster lab, started by daskpki-entrypoint
    Wants=gcr-online.target docker.service
    After=gcr-online.target docker.service
    StartLimitIntervalSec=0

    [Service]
    Environment=HOME=/run/daskpki
    RuntimeDirectory=daskpki
    RuntimeDirectoryMode=0700
    ExecStartPre=/usr/bin/docker-credential-gcr configure-docker --registries=europe-west1-docker.pkg.dev
    ExecStartPre=/bin/sh -c 'iptables -w -C INPUT -p tcp --dport 8786 -j ACCEPT || iptables -w -A INPUT -p tcp --dport 8786 -j ACCEPT'
    ExecStartPre=/usr/bin/install -d -o 65532 -g 65532 -m 0700 /var/lib/daskpki
    ExecStartPre=-/usr/bin/docker rm --force daskpki
    ExecStart=/usr/bin/docker run --rm --name=daskpki \
      --network=host \
      --user=65532:65532 \
      --read-only \
      --tmpfs=/tmp:rw,nosuid,nodev,mode=1777 \
      --volume=/var/lib/daskpki:/scratch \
      --env=HOME=/tmp \
      --env=DASK_TEMPORARY_DIRECTORY=/scratch \
      --cap-drop=ALL \
      --security-opt=no-new-privileges \
      --env=DASKPKI_STORE=gsm://project-one \
      --env=DASKPKI_CLUSTER=lab \
      --env=THREADS_PER_WORKER=1 \
      --env=MEMORY_PER_WORKER=1 \
      europe-west1-docker.pkg.dev/project-one/dask/dask:2026.8.0 \
      node -- --worker-port 9000:9999 --nanny-port 10000:10999
    ExecStop=/usr/bin/docker stop --time=20 daskpki
    Restart=always
    RestartSec=10
runcmd:
- systemctl daemon-reload
- systemctl start daskpki.service
EOT
}

resource "google_project_service" "services_project_one" {
  for_each           = toset(["artifactregistry.googleapis.com", "cloudresourcemanager.googleapis.com", "compute.googleapis.com", "iam.googleapis.com", "logging.googleapis.com", "monitoring.googleapis.com", "secretmanager.googleapis.com"])
  project            = "project-one"
  service            = each.value
  disable_on_destroy = false
}

resource "google_service_account" "service_account_daskpki_lab_node" {
  project      = "project-one"
  account_id   = "daskpki-lab-node"
  display_name = "daskpki-lab-node"
  description  = "managed-by=daskpki daskpki-cluster=lab"
}

resource "google_secret_manager_secret_iam_member" "grant_daskpki_lab_trust_daskpki_lab_node" {
  project   = "project-one"
  secret_id = "daskpki_lab_trust"
  role      = "roles/secretmanager.secretAccessor"
  member    = google_service_account.service_account_daskpki_lab_node.member
}

resource "google_secret_manager_secret_iam_member" "grant_daskpki_lab_scheduler_scheduler_daskpki_lab_node" {
  project   = "project-one"
  secret_id = "daskpki_lab_scheduler_scheduler"
  role      = "roles/secretmanager.secretAccessor"
  member    = google_service_account.service_account_daskpki_lab_node.member
}

resource "google_secret_manager_secret_iam_member" "grant_daskpki_lab_worker_worker_daskpki_lab_node" {
  project   = "project-one"
  secret_id = "daskpki_lab_worker_worker"
  role      = "roles/secretmanager.secretAccessor"
  member    = google_service_account.service_account_daskpki_lab_node.member
}

resource "google_project_iam_member" "grant_roles_logging_logwriter_daskpki_lab_node" {
  project = "project-one"
  role    = "roles/logging.logWriter"
  member  = google_service_account.service_account_daskpki_lab_node.member
}

resource "google_project_iam_member" "grant_roles_monitoring_metricwriter_daskpki_lab_node" {
  project = "project-one"
  role    = "roles/monitoring.metricWriter"
  member  = google_service_account.service_account_daskpki_lab_node.member
}

resource "google_artifact_registry_repository_iam_member" "grant_project_one_europe_west1_dask_daskpki_lab_node" {
  project    = "project-one"
  location   = "europe-west1"
  repository = "dask"
  role       = "roles/artifactregistry.reader"
  member     = google_service_account.service_account_daskpki_lab_node.member
}

resource "google_compute_address" "address_europe_west1_daskpki_lab_scheduler" {
  project     = "project-one"
  name        = "daskpki-lab-scheduler"
  region      = "europe-west1"
  description = "managed-by=daskpki daskpki-cluster=lab"
}

resource "google_compute_firewall" "firewall_rule_daskpki_lab_clients" {
  project                 = "project-one"
  name                    = "daskpki-lab-clients"
  network                 = "default"
  description             = "managed-by=daskpki daskpki-cluster=lab"
  direction               = "INGRESS"
  priority                = 800
  source_ranges           = ["203.0.113.0/24"]
  target_service_accounts = [google_service_account.service_account_daskpki_lab_node.email]

  allow {
    protocol = "tcp"
    ports    = ["8786"]
  }
}

resource "google_compute_firewall" "firewall_rule_daskpki_lab_deny_0" {
  project                 = "project-one"
  name                    = "daskpki-lab-deny-0"
  network                 = "default"
  description             = "managed-by=daskpki daskpki-cluster=lab"
  direction               = "INGRESS"
  priority                = 900
  source_ranges           = ["0.0.0.0/0"]
  target_service_accounts = [google_service_account.service_account_daskpki_lab_node.email]

  deny {
    protocol = "tcp"
    ports    = ["1024-65535"]
  }

  deny {
    protocol = "udp"
    ports    = ["1024-65535"]
  }
}

resource "google_compute_instance" "vm_europe_west1_b_daskpki_lab_node" {
  project      = "project-one"
  name         = "daskpki-lab-node"
  zone         = "europe-west1-b"
  machine_type = "e2-highcpu-16"
  tags         = ["dask-server"]
  labels = {
    managed-by      = "daskpki"
    daskpki-cluster = "lab"
    daskpki-spec    = "5105a07d"
  }
  metadata = {
    enable-oslogin            = "TRUE"
    google-logging-enabled    = "true"
    google-monitoring-enabled = "true"
    user-data                 = local.user_data_vm_europe_west1_b_daskpki_lab_node
  }

  boot_disk {
    initialize_params {
      image = "cos-cloud/cos-stable"
    }
  }

  network_interface {
    network = "default"

    access_config {
      nat_ip = google_compute_address.address_europe_west1_daskpki_lab_scheduler.address
    }
  }

  service_account {
    email  = google_service_account.service_account_daskpki_lab_node.email
    scopes = ["https://www.googleapis.com/auth/cloud-platform"]
  }

  shielded_instance_config {
    enable_secure_boot          = true
    enable_vtpm                 = true
    enable_integrity_monitoring = true
  }
}
