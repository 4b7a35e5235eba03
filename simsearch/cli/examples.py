"""Examples of each command, shown below its help."""

EXAMPLES = {
    None: """\
examples:
  simsearch sample dataset                      make a folder of sample images
  simsearch embed dataset outputs               embed it: minutes once, then only what changed
  simsearch search outputs photo.jpg -k 5       the five most similar images
  simsearch evaluate outputs                    how often they are of the same class
  simsearch train outputs                       learn from the labels, into outputs_head
  simsearch serve outputs                       the same in a browser
""",
    "embed": """\
examples:
  simsearch embed dataset outputs
  simsearch embed ~/Pictures outputs --backbone efficientnet_lite0
  simsearch embed dataset outputs --backbone resnet50 --weights resnet50.pth
  simsearch embed s3://bucket/photos outputs --engine ray      on a cluster
  simsearch embed dataset outputs --exclude drafts --exclude '*.gif'
""",
    "watch": """\
examples:
  simsearch watch dataset outputs               until Ctrl-C
  simsearch watch ~/Pictures outputs --quiet
""",
    "mcp": """\
examples:
  simsearch mcp outputs
  simsearch mcp outputs --root dataset --files  queries may be files of this machine
""",
    "search": """\
examples:
  simsearch search outputs photo.jpg -k 5
  simsearch search outputs photo.jpg --save figure.png
  simsearch search seg_pred/0001.jpg --paths    in outputs/, a picture by its name there
  simsearch search photo.jpg --pictures         with the pictures in the terminal
  simsearch search outputs https://example.org/cat.jpg --json
  simsearch search outputs --text 'a street at night'          by words
  simsearch search outputs 42 --threshold 0.8   row 42 of the library
  simsearch search outputs room.jpg --box 0.5 0 1 1            the right half of it
  simsearch search outputs a.jpg b.jpg --combine mean          what is like both
  simsearch search outputs a.jpg --where 'shoes/*' --unique --diversity 0.3
  simsearch search outputs a.jpg --metadata metadata.csv --where price=..50 tags=red
""",
    "recommend": """\
examples:
  simsearch recommend outputs --liked a.jpg b.jpg --disliked c.jpg
  simsearch recommend outputs --liked 42 --exclude seen/1.jpg -k 20 --unique
""",
    "duplicates": """\
examples:
  simsearch duplicates outputs
  simsearch duplicates outputs --threshold 0.9 --csv duplicates.csv --save duplicates.png
  simsearch duplicates inbox_outputs outputs    what of the inbox is there already
  simsearch duplicates outputs --plan plan.csv --keep oldest --protect dataset/masters
  simsearch duplicates outputs --apply plan.csv --root dataset
  simsearch duplicates outputs --undo --root dataset
  simsearch duplicates outputs --not-duplicates a.jpg b.jpg
""",
    "albums": """\
examples:
  simsearch albums outputs
  simsearch albums outputs --grain fine --csv albums.csv --save albums.png
  simsearch albums outputs --words classes    names that the backbone was taught
""",
    "check": """\
examples:
  simsearch check outputs
  simsearch check outputs --csv health.csv --figure health.pdf
  simsearch check outputs --metadata metadata.csv --labels brand --split part
  simsearch check outputs --fail-on leak exact_duplicate       in a script

exit status: 0, whatever is found; 3 if a kind of --fail-on is found; 1 for an error
""",
    "index": """\
examples:
  simsearch index outputs
  simsearch index outputs --kind hnsw
  simsearch search outputs photo.jpg --index    search through it
""",
    "evaluate": """\
examples:
  simsearch evaluate outputs                    each image against all others
  simsearch evaluate outputs --queries 'seg_test/*' --gallery 'seg_train/*'
  simsearch evaluate outputs -k 1 10 100 --json
  simsearch evaluate outputs --save curve.png
  simsearch evaluate outputs --labels labels.csv               lines of path,label
  simsearch evaluate outputs --metadata metadata.csv --labels brand
""",
    "train": """\
examples:
  simsearch train outputs                       from images in one folder a class
  simsearch train outputs --on 'seg_train/*' --out outputs_head
  simsearch train outputs --labels labels.csv   lines of path,label
  simsearch train outputs --leave-out sea --keep 0.65
  simsearch train outputs --finetune --checkpoint outputs_head/unfinished
  simsearch search outputs_head photo.jpg       search with the head
""",
    "serve": """\
examples:
  simsearch serve outputs                       then open the address that it prints
  simsearch serve outputs --metadata metadata.csv --index
  simsearch serve shop=outputs art=outputs2     two libraries, each at /NAME/
  simsearch serve outputs --root-path /photos   behind a proxy that has it at /photos/
  simsearch serve images.db#shop                what was published on Milvus
  simsearch serve outputs --host 0.0.0.0        for others, who need the token it prints
  SIMSEARCH_TOKEN=... simsearch serve outputs --host 0.0.0.0
""",
    "publish": """\
examples:
  simsearch publish outputs images.db shop       into a Milvus Lite file
  simsearch publish outputs https://milvus.example.org:19530 shop --metadata metadata.csv
  simsearch search images.db#shop photo.jpg      search there; MILVUS_TOKEN is the token
  simsearch publish outputs images.lancedb shop  into a folder or bucket of LanceDB
""",
    "info": "example:\n  simsearch info outputs\n",
    "trust": """\
examples:
  simsearch trust outputs                       of a library that you or a colleague has made
""",
    "export": """\
examples:
  simsearch export outputs library.parquet
  simsearch export outputs library.parquet --metadata metadata.csv
  simsearch export outputs for_fiftyone --kind fiftyone  for fiftyone.Dataset.from_dir
""",
    "import": """\
examples:
  simsearch import library.parquet outputs --root dataset
  simsearch import embeddings.npy outputs --paths paths.csv --backbone resnet50
  simsearch import library.parquet outputs --csv metadata.csv  with its other columns
""",
    "verify": "example:\n  simsearch verify outputs\n",
    "completion": """\
examples:
  simsearch completion bash > ~/.local/share/bash-completion/completions/simsearch
  simsearch completion zsh > ~/.zfunc/_simsearch               fpath has to hold ~/.zfunc
""",
    "sample": "example:\n  simsearch sample dataset\n",
}
