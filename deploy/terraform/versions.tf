# One virtual machine on AWS that runs the node as a container: docs/cloud.md. Research use only.
terraform {
  required_version = ">= 1.6"
  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = "~> 5.60"
    }
  }
}

provider "aws" {
  region = var.region

  default_tags {
    tags = {
      Project = "neuroseg-node"
    }
  }
}
