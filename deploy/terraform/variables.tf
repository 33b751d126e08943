variable "region" {
  description = "AWS region; where the images may lie is a decision of the site."
  type        = string
}

variable "image" {
  description = "The node's image by digest, such as ghcr.io/OWNER/neuroseg-node@sha256:..."
  type        = string

  validation {
    condition     = can(regex("@sha256:[0-9a-f]{64}$", var.image))
    error_message = "Name the image by its digest: a tag may become another image."
  }
}

variable "instance_type" {
  description = "Two cores and 8 GB segment a study in well under a minute; g5.xlarge has a GPU."
  type        = string
  default     = "m7i.large"
}

variable "spool_gb" {
  description = "Size of the encrypted volume that holds spool, ledger and jobs."
  type        = number
  default     = 200

  validation {
    condition     = var.spool_gb >= 20
    error_message = "At least 20 GB: the node refuses images when 2 GB are left."
  }
}

variable "site_cidrs" {
  description = "Networks that may reach the page and the DICOM port: those of the site's VPN."
  type        = list(string)

  validation {
    condition     = length(var.site_cidrs) > 0 && !anytrue([for one in var.site_cidrs : endswith(one, "/0")])
    error_message = "Name the site's networks; the DICOM port is never open to the world."
  }
}

variable "config" {
  description = "The node's node.toml: destinations and whatever differs from the defaults."
  type        = string
  default     = ""
}

variable "tokens_secret" {
  description = "ARN of a Secrets Manager secret whose text is the tokens file (role, name and token a line)."
  type        = string
}

variable "vpc_cidr" {
  description = "Addresses of the network that is made."
  type        = string
  default     = "10.77.0.0/24"
}
